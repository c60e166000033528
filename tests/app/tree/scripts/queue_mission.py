#!/usr/bin/env python3
"""Give a VP worker something to do: `queue_mission.py VP_ID SECONDS` prints the mission's id."""

import sys
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from universal_agent import vp_state  # noqa: E402


def main(vp_id: str, seconds: float) -> None:
    mission_id = f"mission-{uuid.uuid4().hex[:12]}"
    vp_state.connect().execute(
        "INSERT INTO vp_missions (mission_id, vp_id, status, seconds, created_at) VALUES (?, ?, 'queued', ?, ?)",
        (mission_id, vp_id, seconds, vp_state.now()),
    )
    print(mission_id)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
