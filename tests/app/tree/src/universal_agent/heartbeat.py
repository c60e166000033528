"""Heartbeat file of a process, read by the watchdog of August. February has none."""

import os
import threading
import time
from pathlib import Path

from universal_agent import shape

INTERVAL_SECONDS = 10.0


def start(service: str, variable: str) -> None:
    """Write the time in seconds of the epoch every ten seconds. Failing writes are ignored, as in the real app."""
    if not shape.AUGUST:
        return
    default = f"/var/lib/universal-agent/heartbeat/{service}.heartbeat"
    file = Path(os.environ.get(variable, "").strip() or default)
    threading.Thread(target=_beat, args=(file,), daemon=True).start()


def _beat(file: Path) -> None:
    temporary = file.with_suffix(".tmp")
    while True:
        try:
            temporary.write_text(f"{time.time():.3f}\n", encoding="utf-8")
            temporary.replace(file)
        except OSError:
            pass
        time.sleep(INTERVAL_SECONDS)
