"""The Telegram bot: a loop without a port. In August it writes a heartbeat file."""

import time

from universal_agent import heartbeat, infisical_loader, runtime

if __name__ == "__main__":
    runtime.start("telegram")
    infisical_loader.initialize_runtime_secrets()
    heartbeat.start("telegram", "UA_TELEGRAM_PROCESS_HEARTBEAT_FILE")
    while True:
        time.sleep(1)
