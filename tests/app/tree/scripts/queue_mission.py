#!/usr/bin/env python3
"""Queue a mission as the gateway does: `queue_mission.py VP_ID SECONDS` prints its id.

Run as the owner in the app's directory.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from universal_agent.durable import state  # noqa: E402
from universal_agent.vp.dispatcher import dispatch  # noqa: E402


def main(vp_id: str, seconds: float) -> None:
    database = state.connect(state.vp_database())
    print(dispatch(database, vp_id, f"Take {seconds:g} seconds", {"seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
