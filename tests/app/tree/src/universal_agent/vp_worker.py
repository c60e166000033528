"""A VP worker: takes missions from the database, one at a time.

Busy means: its `vp_missions` row is `running` and its session `active`. When stopped it dies at once and
the mission is lost, unless `UA_VP_DRAIN_ON_STOP` is set: then it ends its mission first.
"""

import os
import signal
import sqlite3
import sys
import time
import uuid

from universal_agent import runtime, vp_state

REFRESH_SECONDS = 1.0
TRUE = {"1", "true", "yes", "on"}
EX_CONFIG = 78


class Worker:
    """One VP and the row that speaks for it."""

    def __init__(self, vp_id: str, database: sqlite3.Connection) -> None:
        self.vp_id = vp_id
        self.database = database
        self.lease_owner = f"{vp_id}:{os.getpid()}"
        self.session_id = f"{vp_id}.{uuid.uuid4().hex[:12]}"
        self.stopping = False

    def run(self) -> None:
        """Work until stopped."""
        # Whatever the last process left running died with it.
        self.database.execute(
            "UPDATE vp_missions SET status = 'failed', completed_at = ? WHERE vp_id = ? AND status = 'running'",
            (vp_state.now(), self.vp_id),
        )
        while not self.stopping:
            if mission := self._claim():
                self._carry_out(*mission)
            self._refresh("idle")
            time.sleep(REFRESH_SECONDS)

    def stop(self, _signal: int, _frame: object) -> None:
        """On SIGTERM."""
        if os.environ.get("UA_VP_DRAIN_ON_STOP", "").lower() not in TRUE:
            sys.exit(0)
        self.stopping = True

    def _claim(self) -> tuple[str, float] | None:
        row = self.database.execute(
            "SELECT mission_id, seconds FROM vp_missions WHERE vp_id = ? AND status = 'queued' ORDER BY created_at",
            (self.vp_id,),
        ).fetchone()
        if row:
            self._set_mission(row[0], "running", "started_at")
        return row

    def _carry_out(self, mission_id: str, seconds: float) -> None:
        runtime.log(f"{self.vp_id}: mission {mission_id} started")
        end = time.monotonic() + seconds
        cancelled = False
        while time.monotonic() < end and not cancelled:
            self._refresh("active")
            time.sleep(REFRESH_SECONDS)
            cancelled = self.database.execute(
                "SELECT cancel_requested FROM vp_missions WHERE mission_id = ?", (mission_id,)
            ).fetchone() != (0,)
        self._set_mission(mission_id, "cancelled" if cancelled else "completed", "completed_at")
        runtime.log(f"{self.vp_id}: mission {mission_id} ended")

    def _set_mission(self, mission_id: str, status: str, time_column: str) -> None:
        self.database.execute(
            f"UPDATE vp_missions SET status = ?, {time_column} = ? WHERE mission_id = ?",
            (status, vp_state.now(), mission_id),
        )

    def _refresh(self, status: str) -> None:
        now = vp_state.now()
        self.database.execute(
            """
            INSERT INTO vp_sessions (vp_id, session_id, status, lease_owner, last_heartbeat_at, created_at, updated_at)
            VALUES (?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (vp_id) DO UPDATE SET session_id = excluded.session_id, status = excluded.status,
              lease_owner = excluded.lease_owner, last_heartbeat_at = excluded.last_heartbeat_at,
              updated_at = excluded.updated_at
            """,
            (self.vp_id, self.session_id, status, self.lease_owner, now, now, now),
        )


def contract_error(vp_id: str) -> str | None:
    """Why this worker must not run with the environment it was given."""
    if os.environ.get("UA_VP_EXTERNAL_DISPATCH_ENABLED", "").lower() not in TRUE:
        return "UA_VP_EXTERNAL_DISPATCH_ENABLED is not on"
    if os.environ.get("UA_VP_DISPATCH_MODE") != "db_pull":
        return "UA_VP_DISPATCH_MODE is not db_pull"
    if vp_id not in os.environ.get("UA_VP_ENABLED_IDS", "").split(","):
        return f"{vp_id} is not in UA_VP_ENABLED_IDS"
    return None


def main(vp_id: str) -> None:
    """Run the worker of one VP."""
    if error := contract_error(vp_id):
        runtime.log(f"{vp_id}: {error}")
        sys.exit(EX_CONFIG)
    worker = Worker(vp_id, vp_state.connect())
    signal.signal(signal.SIGTERM, worker.stop)
    runtime.start(f"vp-worker@{vp_id}")
    worker.run()


if __name__ == "__main__":
    main(sys.argv[1])
