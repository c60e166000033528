"""Queues missions, as the gateway does."""

import json
import sqlite3
import uuid

from universal_agent.durable import state
from universal_agent.vp.profiles import profile


def dispatch(database: sqlite3.Connection, vp_id: str, objective: str, constraints: dict[str, object]) -> str:
    """Queue a mission and return its id. The session becomes `idle`, even if its worker is busy."""
    vp = profile(vp_id)
    mission_id = f"vp-mission-{uuid.uuid4().hex[:24]}"
    vp.workspace_root.mkdir(parents=True, exist_ok=True)
    state.put_session(
        database,
        vp_id,
        runtime_id=vp.runtime_id,
        status="idle",
        workspace_dir=str(vp.workspace_root),
        metadata=vp.metadata,
    )
    state.tell_session(database, vp_id, "vp.session.available", {"workspace_root": str(vp.workspace_root)})
    payload = {
        "mission_id": mission_id,
        "vp_id": vp_id,
        "mission_type": "task",
        "objective": objective,
        "constraints": constraints,
        "source_session_id": "session_lab",
        "source_turn_id": "turn_lab",
        "reply_mode": "async",
        "priority": 100,
    }
    row = payload | {"payload_json": json.dumps(payload)}
    keys = ("mission_id", "vp_id", "mission_type", "objective", "payload_json", "priority")
    state.queue_mission(database, {key: row[key] for key in keys})
    mission = state.get_mission(database, mission_id)
    state.tell_mission(database, mission, "vp.mission.dispatched", {"mission_type": "task"})
    return mission_id
