"""The Telegram bot: no port, a loop. Only systemd and the heartbeat file tell how it is."""

import time

from universal_agent import runtime

if __name__ == "__main__":
    runtime.start("telegram")
    while True:
        time.sleep(1)
