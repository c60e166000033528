"""Which release this process was started from.

Read once, at import: the file changes under a running process when the next release is put in place.
"""

import time
from pathlib import Path

APP_DIR = Path(__file__).resolve().parents[2]
STARTED_AT = time.time()


def _read() -> str:
    text = Path(__file__).with_name("_release.txt").read_text(encoding="utf-8").strip()
    # Outside of a `git archive` nothing was filled in.
    return "unreleased" if text.startswith("$") else text


VERSION = _read()
