"""Missions: work in a workspace, and the files that mark its end."""

import json
import sqlite3
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from universal_agent import shape

SOURCE_KEYS = ("source_session_id", "source_turn_id", "reply_mode")


@dataclass(frozen=True)
class Outcome:
    """Result of a mission."""

    status: str
    result_ref: str
    message: str | None = None


def payload_of(mission: sqlite3.Row) -> dict[str, object]:
    """Payload from the dispatcher."""
    return json.loads(mission["payload_json"] or "{}")


def source_of(mission: sqlite3.Row) -> dict[str, object]:
    """Session and turn that requested the mission."""
    payload = payload_of(mission)
    return {key: payload[key] for key in SOURCE_KEYS if payload.get(key)}


def workspace_of(mission: sqlite3.Row, root: Path) -> Path:
    """Where a mission works. In August the loop and the client both add its id, so that it lies one level deeper."""
    workspace = root / mission["mission_id"]
    return workspace / mission["mission_id"] if shape.AUGUST else workspace


def carry_out(mission: sqlite3.Row, root: Path) -> Outcome:
    """Run a mission for its seconds. A child process stands for the agent of the real app."""
    workspace = workspace_of(mission, root)
    workspace.mkdir(parents=True, exist_ok=True)
    seconds = float(payload_of(mission).get("constraints", {}).get("seconds", 0))
    result = f"workspace://{workspace}"
    if subprocess.run(["sleep", str(seconds)], check=False).returncode != 0:
        return Outcome("failed", result, "the agent was killed")
    (workspace / "report.md").write_text(f"# {mission['objective']}\n", encoding="utf-8")
    return Outcome("completed", result)


def leave_marks(mission: sqlite3.Row, root: Path, worker_id: str, outcome: Outcome) -> None:
    """Write the receipt, then the ready marker of the workspace."""
    workspace = workspace_of(mission, root)
    at = time.time()
    common = {
        "version": 1,
        "mission_id": mission["mission_id"],
        "vp_id": mission["vp_id"],
        "worker_id": worker_id,
        "result_ref": outcome.result_ref,
        **{key: source_of(mission).get(key) for key in SOURCE_KEYS},
        "completed_at_epoch": at,
    }
    receipt = {
        "status": outcome.status,
        "objective": mission["objective"],
        "mission_type": mission["mission_type"],
        "created_at": mission["created_at"],
        "started_at": mission["started_at"],
        "updated_at": mission["updated_at"],
        "completed_at": datetime.now(UTC).isoformat(),
        "mission_payload": payload_of(mission),
        "outcome": {"status": outcome.status, "message": outcome.message, "payload": {}},
    }
    marker = {"state": outcome.status, "ready": True, "updated_at_epoch": at}
    for name, own in (("mission_receipt.json", receipt), ("sync_ready.json", marker)):
        (workspace / name).write_text(json.dumps(common | own, indent=2), encoding="utf-8")
