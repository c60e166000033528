"""Prints as JSON the state of a VPS, asked on itself. stdin: {COMMIT: output of `git ls-tree -r -z COMMIT`}."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

APP = Path("/opt/universal_agent")
STATE = Path("/var/lib/ua-deploy")
SERVICES = ["gateway", "api", "webui", "telegram", "vp-worker@vp.general.primary", "vp-worker@vp.coder.primary"]
TEMPLATE = "deployment/systemd/universal-agent-vp-worker@.service"
# Files that the server writes.
PRESERVED = ("Memory_System/ua_shared_workspace/", "src/universal_agent/prompt_assets/capabilities.last_good.md")
# Databases are not shipped.
DATABASES = (".db", ".sqlite", ".sqlite3")
FIRST_LINE = re.compile(r'pid=(\d+) note=(".*")$')


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True).stdout.strip()


def descendants(pid):
    """The process and its children, theirs included."""
    children = {}
    for line in run("ps", "-eo", "pid=,ppid=").splitlines():
        child, parent = line.split()
        children.setdefault(parent, []).append(child)
    found = []
    queue = [pid]
    while queue:
        found.append(queue.pop())
        queue += children.get(found[-1], [])
    return found


def note(service):
    """The note that the living process of a service logged at its start."""
    unit = f"universal-agent-{service}.service"
    main = run("systemctl", "show", "--property=MainPID", "--value", unit)
    if main == "0":
        return "no process"
    if "@" in service:
        file = APP / "logs" / f"vp-worker-{service.split('@')[1]}.log"
        log = file.read_text(errors="replace") if file.exists() else ""
    else:
        log = run("journalctl", "--unit", unit, "--lines=400", "--output=cat", "--no-pager")
    living = descendants(main)
    for line in reversed(log.splitlines()):
        match = FIRST_LINE.search(line)
        if match and match[1] in living:
            return json.loads(match[2])
    return f"process {main} logged no note"


def there(path):
    """The entry at a path, as git would name it."""
    if path.is_symlink():
        kind, data = "120000", os.readlink(path).encode()
    elif path.is_file():
        kind = "100755" if path.stat().st_mode & 0o100 else "100644"
        data = path.read_bytes()
    else:
        return None
    return f"{kind} blob {hashlib.sha1(b'blob %d' % len(data) + bytes(1) + data).hexdigest()}"


def shipped(text):
    """The entries of a commit that a deploy puts in place, by path."""
    entries = (line.split("\t", 1) for line in text.split("\0") if line)
    return {
        path: entry
        for entry, path in entries
        if " commit " not in entry and not path.endswith(DATABASES) and path.isprintable()
    }


def unlike(trees):
    """For each commit the paths that differ from it, or that it does not have."""
    trees = {commit: shipped(text) for commit, text in trees.items()}
    paths = {path for tree in trees.values() for path in tree}
    preserved = {path for path in paths if path.startswith(PRESERVED)}
    wrong = {}
    for commit, tree in trees.items():
        wrong[commit] = sorted(path for path in paths - preserved if there(APP / path) != tree.get(path))
        wrong[commit] += sorted(path for path in preserved & tree.keys() if there(APP / path) is None)
        installed = Path("/etc/systemd/system") / Path(TEMPLATE).name
        if there(installed) != tree.get(TEMPLATE):
            wrong[commit].append(str(installed))
    return wrong


def watchdog():
    """The state of the watchdog's timer. An active one may still never elapse again."""
    timer = "universal-agent-service-watchdog.timer"
    keys = ["ActiveState", "SubState", "NextElapseUSecMonotonic", "NextElapseUSecRealtime"]
    shown = run("systemctl", "show", f"--property={','.join(keys)}", timer)
    state = dict(line.split("=", 1) for line in shown.splitlines())
    ends = {"", "infinity", "n/a"}
    if state["ActiveState"] == "active" and state["SubState"] != "running" and {state[key] for key in keys[2:]} <= ends:
        return "active, but will not elapse again"
    return state["ActiveState"]


def strays():
    found = run(
        *["find", str(APP), "-name", "*.ua-new", "-o", "-name", "*.ua-old", "-o", "-name", ".~tmp~"],
        *["-o", "-name", ".rsync-partial"],
    ).splitlines()
    return found + [str(path) for path in STATE.glob("build/*")]


def main():
    units = [f"universal-agent-{service}.service" for service in SERVICES]
    states = run("systemctl", "is-active", *units).splitlines()
    print(
        json.dumps(
            {
                "notes": {service: note(service) for service in SERVICES},
                "unlike": unlike(json.load(sys.stdin)),
                "strays": strays(),
                "down": [f"{unit} is {state}" for unit, state in zip(units, states) if state != "active"],
                "watchdog": watchdog(),
            }
        )
    )


main()
