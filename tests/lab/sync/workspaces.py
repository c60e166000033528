"""Workspaces, made on the VPS, and looked at on either machine. The first argument says what is wanted.

make DIR              workspaces as JSON on stdin, one a line
tree all DIR          everything in DIR as the file system knows it, and content: whatever is touched shows
tree content DIR [ID] what a copy has to have of DIR, or of these directories in it
whole DIR FILES       reads the workspaces in DIR until FILES.stop is there; once seen, each must be there and whole
kill DELAY            starts ua-sync with the arguments that follow, and kills it after DELAY seconds
"""

import fcntl
import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import time

MARKER = "sync_ready.json"
# What a workspace holds, by itself: digest and path of every file but these two.
CONTENT = "content.json"
KINDS = [(stat.S_ISDIR, "d"), (stat.S_ISREG, "f"), (stat.S_ISLNK, "l")]


def make(root):
    for line in sys.stdin:
        put(root, **json.loads(line))


def put(root, id, age, files=5, bytes=2000, run=0, state="completed", log="a line\n", inner=False):
    """One workspace whose run of this number ended `age` seconds ago; without a state its marker is missing.

    An id of two parts is a mission of a worker; with `inner` it was worked on in a directory of its own name.
    """
    top = os.path.join(root, id)
    shutil.rmtree(top, ignore_errors=True)
    at = os.path.join(top, os.path.basename(id)) if inner else top
    noise = random.Random(f"{id} {run}")
    content = {"run.log": (log * (run + 1)).encode()} if log is not None else {}
    for number in range(files):
        content[f"work_products/part {number % 3}/{number}.bin"] = noise.randbytes(bytes // files)
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in content.items()}
    content[CONTENT] = json.dumps(digests).encode()
    ended = time.time() - age
    if state is not None:
        marker = {"version": 1, "state": state, "ready": True}
        if "/" in id:
            container, mission = id.split("/")
            marker |= {"mission_id": mission, "vp_id": container, "worker_id": "w", "result_ref": f"workspace://{at}"}
        else:
            marker |= {"session_id": id, "run_source": "chat"}
        marker |= {"updated_at_epoch": round(ended, 2), "completed_at_epoch": round(ended, 2)}
        content[MARKER] = json.dumps(marker).encode()
    for path, data in content.items():
        path = os.path.join(at, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
    date(top, ended)


def date(at, ended):
    paths = [os.path.join(top, name) for top, _, names in os.walk(at, topdown=False) for name in [*names, "."]]
    for path in paths:
        os.utime(path, (ended, ended))


def tree(how, root, *names):
    os.chdir(os.fsencode(root))
    open_ = [os.fsencode(name) for name in names] or sorted(os.listdir(b"."))
    if how == "content" and not names:
        # What is ours at the root of a mirror.
        open_ = [name for name in open_ if not name.startswith(b".")]
    lines = []
    while open_:
        path = open_.pop()
        meta = os.lstat(path)
        kind = next((kind for is_it, kind in KINDS if is_it(meta.st_mode)), "other")
        what = [repr(path), kind, meta.st_size if kind == "f" else 0, meta.st_mtime_ns]
        if how == "all":
            what += [oct(meta.st_mode), meta.st_uid, meta.st_gid, meta.st_ino, meta.st_ctime_ns]
        if kind == "d":
            open_ += [os.path.join(path, name) for name in sorted(os.listdir(path))]
        elif kind == "f":
            with open(path, "rb") as file:
                what.append(hashlib.file_digest(file, "sha256").hexdigest())
        elif kind == "l":
            what.append(os.readlink(path))
        lines.append(" ".join(map(str, what)))
    print("\n".join(sorted(lines)))


def whole(root, files):
    looks, bad, known = 0, [], set()
    while not os.path.exists(f"{files}.stop"):
        known |= {name for name in os.listdir(root) if not name.startswith(".")}
        for name in known:
            why = look(root, name)
            looks += 1
            bad += [f"{name}: {why}"] if why and len(bad) < 20 else []
        open(f"{files}.ready", "w").close()
    print(json.dumps({"looks": looks, "bad": bad}))


def look(root, name):
    """What is wrong with a workspace, unless it is another one by the time that this is known."""
    path = os.path.join(root, name)
    try:
        dir = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return "it is gone"
    try:
        why = broken(dir)
        return why if os.path.samestat(os.fstat(dir), os.lstat(path)) else None
    except FileNotFoundError:
        return "it is gone"
    finally:
        os.close(dir)


def broken(dir):
    def read(path):
        with open(os.open(path, os.O_RDONLY, dir_fd=dir), "rb") as file:
            return file.read()

    try:
        marker = json.loads(read(MARKER))
        content = json.loads(read(CONTENT))
    except (OSError, ValueError) as error:
        return str(error)
    if not marker["ready"]:
        return "its marker is not ready"
    for path, digest in content.items():
        try:
            if hashlib.sha256(read(path)).hexdigest() != digest:
                return f"{path} is another"
        except OSError as error:
            return str(error)
    return None


def kill(delay, *command):
    run = subprocess.Popen(["ua-sync", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        code = run.wait(float(delay))
    except subprocess.TimeoutExpired:
        run.kill()
        code = run.wait()
    start = time.monotonic()
    left = ours()
    while left and time.monotonic() < start + 20:
        time.sleep(0.02)
        left = ours()
    took = time.monotonic() - start
    state = "AGENT_RUN_WORKSPACES/remote_vps_sync_state/synced_workspaces.txt.lock"
    locked = [path for path in (state, "AGENT_RUN_WORKSPACES/remote_vps_workspaces") if is_locked(path)]
    # The stream is at its end, for nothing has it open any more.
    said = "" if left else run.stderr.read().decode()
    print(json.dumps({"code": code, "took": took, "left": left, "locked": locked, "said": said}))


def ours():
    listed = subprocess.run(["pgrep", "-a", "-u", str(os.getuid()), "-x", "ua-sync|ssh|rsync"], capture_output=True)
    return listed.stdout.decode()


def is_locked(path):
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(file)


{"make": make, "tree": tree, "whole": whole, "kill": kill}[sys.argv[1]](*sys.argv[2:])
