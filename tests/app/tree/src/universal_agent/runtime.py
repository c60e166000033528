"""Start of every service: log its process and its note, and carry out planted faults."""

import json
import logging
import os
import sys
import threading
import time

from universal_agent import faults, notes

LOG = logging.getLogger(__name__)
PLANTED = "fault planted in this release"


def start(service: str) -> None:
    """Start as `service`. The first line of its log holds the pid and the note of this process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if (seconds := faults.IMPORT_FAILS_AFTER_SECONDS.get(service)) is not None:
        time.sleep(seconds)
        raise ImportError(PLANTED)
    if service in faults.CRASH_AT_START:
        LOG.critical("%s: fatal: %s", service, PLANTED)
        sys.exit(1)
    LOG.info("%s: starting, pid=%d note=%s", service, os.getpid(), json.dumps(notes.NOTE))
    if (seconds := faults.CRASH_AFTER_SECONDS.get(service)) is not None:
        timer = threading.Timer(seconds, _crash, args=(service,))
        timer.daemon = True
        timer.start()
    time.sleep(faults.START_SECONDS.get(service, 0))


def _crash(service: str) -> None:
    LOG.critical("%s: fatal: %s", service, PLANTED)
    os._exit(1)
