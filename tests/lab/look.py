"""Prints as JSON what there is on a VPS, asked on itself. stdin: {COMMIT: what `git ls-tree -r COMMIT` prints}."""

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

APP = Path("/opt/universal_agent")
STATE = Path("/var/lib/ua-deploy")
HEARTBEATS = Path("/var/lib/universal-agent/heartbeat")
PORTS = {"gateway": 8002, "api": 8001, "webui": 3000}
WITHOUT_PORT = ["telegram", "vp-worker@vp.general.primary", "vp-worker@vp.coder.primary"]
RELEASE = "src/universal_agent/_release.txt"
TEMPLATE = "deployment/systemd/universal-agent-vp-worker@.service"
# The server writes these.
PRESERVED = ("Memory_System/ua_shared_workspace/", "src/universal_agent/prompt_assets/capabilities.last_good.md")


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True).stdout.strip()


def versions():
    told = {}
    for name, port in PORTS.items():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/version", timeout=5) as answer:
                said = json.load(answer)
        except (OSError, ValueError) as error:
            told[name] = str(error)
            continue
        told[name] = said["version"]
        if "build_version" in said:
            told[f"{name}'s build"] = said["build_version"]
    for name in WITHOUT_PORT:
        try:
            beat = json.loads((HEARTBEATS / f"{name}.json").read_text())
        except (OSError, ValueError) as error:
            told[name] = str(error)
            continue
        pid = run("systemctl", "show", "--property=MainPID", "--value", f"universal-agent-{name}.service")
        told[name] = beat["version"] if str(beat["pid"]) == pid else f"process {beat['pid']} is not the unit's, {pid}"
    return told


def there(path):
    """What lies at a path, as git would name it."""
    if path.is_symlink():
        kind, data = "120000", os.readlink(path).encode()
    elif path.is_file():
        kind = "100755" if path.stat().st_mode & 0o100 else "100644"
        data = path.read_bytes()
    else:
        return None
    return f"{kind} blob {hashlib.sha1(b'blob %d' % len(data) + bytes(1) + data).hexdigest()}"


def unlike(trees):
    """For each commit the paths that are not as it has them, or that it does not have."""
    trees = {commit: dict(reversed(line.split("\t")) for line in text.splitlines()) for commit, text in trees.items()}
    paths = {path for tree in trees.values() for path in tree if not path.startswith(PRESERVED)}
    wrong = {}
    for commit, tree in trees.items():
        wrong[commit] = sorted(path for path in paths - {RELEASE} if there(APP / path) != tree.get(path))
        try:
            if (APP / RELEASE).read_text().strip() != commit:
                wrong[commit].append(RELEASE)
        except OSError:
            wrong[commit].append(RELEASE)
        installed = Path("/etc/systemd/system") / Path(TEMPLATE).name
        if there(installed) != tree.get(TEMPLATE):
            wrong[commit].append(str(installed))
    return wrong


def strays():
    found = run(
        *["find", str(APP), "-name", "*.ua-new", "-o", "-name", "*.ua-old", "-o", "-name", ".~tmp~"],
        *["-o", "-name", ".rsync-partial"],
    ).splitlines()
    return found + [str(path) for path in STATE.glob("build/*")]


def main():
    units = [f"universal-agent-{name}.service" for name in [*PORTS, *WITHOUT_PORT]]
    states = run("systemctl", "is-active", *units).splitlines()
    print(
        json.dumps(
            {
                "versions": versions(),
                "unlike": unlike(json.load(sys.stdin)),
                "strays": strays(),
                "down": [f"{unit} is {state}" for unit, state in zip(units, states) if state != "active"],
                "watchdog": run("systemctl", "is-active", "universal-agent-service-watchdog.timer"),
            }
        )
    )


main()
