"""`python -m universal_agent.vp.worker_main --vp-id VP_ID`"""

import argparse
import signal

from universal_agent import infisical_loader, runtime, shape
from universal_agent.durable import state
from universal_agent.vp.profiles import enabled_ids
from universal_agent.vp.worker_loop import Worker


def main() -> None:
    """Run the worker of one VP. SIGTERM kills it in February; in August it finishes its mission first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--vp-id", required=True)
    vp_id = parser.parse_args().vp_id
    runtime.start(f"vp-worker@{vp_id}")
    infisical_loader.load_or_go_on()
    if vp_id not in enabled_ids():
        raise SystemExit(f"{vp_id} is not enabled by UA_VP_ENABLED_IDS")
    database = state.connect(state.vp_database())
    state.ensure_schema(database)
    worker = Worker(database, vp_id)
    if shape.AUGUST:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stopped.set())
    worker.run()


if __name__ == "__main__":
    main()
