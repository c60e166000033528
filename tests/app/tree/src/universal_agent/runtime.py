"""What every service does at its start: announce itself, keep a heartbeat file, carry out planned faults."""

import json
import os
import sys
import threading
import time
from pathlib import Path

from universal_agent import faults, release

HEARTBEAT_SECONDS = 5.0


def identity(service: str) -> dict[str, object]:
    """What this process says it is; the answer of `/version` and the content of the heartbeat file."""
    return {
        "version": faults.TOLD_VERSIONS.get(service, release.VERSION),
        "service": service,
        "pid": os.getpid(),
        "started_at": release.STARTED_AT,
    }


def log(message: str) -> None:
    """One line for the journal."""
    print(message, file=sys.stderr, flush=True)


def start(service: str) -> None:
    """Begin as `service`. Without a heartbeat directory a service does not start, as in production."""
    if service in faults.CRASH_AT_START:
        log(f"{service}: fatal: fault planted in this release")
        sys.exit(1)
    _beat(service)
    threading.Thread(target=_keep_beating, args=(service,), daemon=True).start()
    if (after := faults.CRASH_AFTER_SECONDS.get(service)) is not None:
        timer = threading.Timer(after, _crash, args=(service,))
        timer.daemon = True
        timer.start()
    log(f"{service}: started, release {release.VERSION}")


def _crash(service: str) -> None:
    log(f"{service}: fatal: fault planted in this release")
    os._exit(1)


def _keep_beating(service: str) -> None:
    while True:
        time.sleep(HEARTBEAT_SECONDS)
        try:
            _beat(service)
        except OSError as error:
            log(f"{service}: heartbeat: {error}")


def _beat(service: str) -> None:
    directory = Path(os.environ.get("UA_HEARTBEAT_DIR", "/var/lib/universal-agent/heartbeat"))
    written = directory / f".{service}.tmp"
    written.write_text(json.dumps(identity(service) | {"beat_at": time.time()}) + "\n", encoding="utf-8")
    written.replace(directory / f"{service}.json")
