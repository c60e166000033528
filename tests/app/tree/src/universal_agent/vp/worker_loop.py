"""A VP worker: claims missions from the database, one at a time, with the writes of the real worker in their order.

An idle worker renews its lease at each poll. Its session is `active` until its first mission ends, then `idle`. In a
mission the worker of February writes nothing; the worker of August renews lease and claim.
"""

import logging
import os
import sqlite3
import subprocess
import threading
import time
import uuid

from universal_agent import shape
from universal_agent.durable import state
from universal_agent.paths import APP_DIR
from universal_agent.vp import missions
from universal_agent.vp.profiles import profile

LOG = logging.getLogger(__name__)
CODE_CHECK_SECONDS = 30


def _seconds(variable: str, default: int, least: int) -> int:
    """A whole number from the environment, at least `least`."""
    text = os.environ.get(variable, "")
    return max(least, int(text)) if text.isdigit() else default


class Worker:
    """The worker of one VP."""

    def __init__(self, database: sqlite3.Connection, vp_id: str) -> None:
        self.database = database
        self.vp = profile(vp_id)
        self.worker_id = f"{vp_id}.worker.{uuid.uuid4().hex[:8]}"
        self.poll = _seconds("UA_VP_POLL_INTERVAL_SECONDS", 5, 1)
        self.lease = _seconds("UA_VP_LEASE_TTL_SECONDS", 120, 15)
        self.stopped = threading.Event()
        self.code = deployed_code()
        self.code_checked = time.monotonic()

    def run(self) -> None:
        """Work until stopped. A mission of a killed worker is claimed again after its claim has expired."""
        LOG.info("VP worker starting: vp_id=%s worker_id=%s", self.vp.vp_id, self.worker_id)
        self.vp.workspace_root.mkdir(parents=True, exist_ok=True)
        self._put_session("idle")
        if not state.take_lease(self.database, self.vp.vp_id, self.worker_id, self.lease):
            self._degrade("no lease")
        while not self.stopped.is_set():
            try:
                self._tick()
            except Exception as error:
                LOG.exception("VP worker tick failed: vp_id=%s", self.vp.vp_id)
                self._degrade(str(error))
                self.stopped.wait(self.poll)
        state.drop_lease(self.database, self.vp.vp_id, self.worker_id)
        self._put_session("idle")
        LOG.info("VP worker stopped: vp_id=%s worker_id=%s", self.vp.vp_id, self.worker_id)

    def _tick(self) -> None:
        if self._code_is_old():
            self.stopped.set()
            return
        state.renew_lease(self.database, self.vp.vp_id, self.worker_id, self.lease)
        self._recover()
        mission = state.claim_mission(self.database, self.vp.vp_id, self.worker_id, self.lease)
        if mission is None:
            self.stopped.wait(self.poll)
            return
        self._put_session("active")
        told = missions.source_of(mission) | {"worker_id": self.worker_id}
        state.tell_mission(self.database, mission, "vp.mission.started", told)
        # A running mission is not cancelled.
        if mission["cancel_requested"]:
            state.end_mission(self.database, mission["mission_id"], "cancelled", None)
            state.tell_mission(self.database, mission, "vp.mission.cancelled", told)
        else:
            state.renew_claim(self.database, mission["mission_id"], self.worker_id, self.lease)
            outcome = self._carry_out(mission)
            state.end_mission(self.database, mission["mission_id"], outcome.status, outcome.result_ref)
            missions.leave_marks(mission, self.vp.workspace_root, self.worker_id, outcome)
            state.tell_mission(self.database, mission, f"vp.mission.{outcome.status}", told)
        self._put_session("idle")

    def _carry_out(self, mission: sqlite3.Row) -> missions.Outcome:
        if not shape.AUGUST:
            return missions.carry_out(mission, self.vp.workspace_root)
        ended = threading.Event()
        renewer = threading.Thread(target=self._keep_renewing, args=(mission["mission_id"], ended), daemon=True)
        renewer.start()
        try:
            return missions.carry_out(mission, self.vp.workspace_root)
        finally:
            ended.set()
            renewer.join()

    def _keep_renewing(self, mission_id: str, ended: threading.Event) -> None:
        database = state.connect(state.vp_database())
        while not ended.wait(max(5, self.lease // 3)):
            try:
                state.renew_claim(database, mission_id, self.worker_id, self.lease)
                state.renew_lease(database, self.vp.vp_id, self.worker_id, self.lease)
            except sqlite3.Error as error:
                LOG.warning("VP mission heartbeat failed: mission_id=%s err=%s", mission_id, error)
        database.close()

    def _recover(self) -> None:
        """In August, make a degraded session `idle` again. In February it stays `degraded`."""
        if not shape.AUGUST:
            return
        row = self.database.execute("SELECT status FROM vp_sessions WHERE vp_id = ?", (self.vp.vp_id,)).fetchone()
        if row and row["status"] == "degraded":
            self._put_session("idle")

    def _code_is_old(self) -> bool:
        """In August, report a new commit in the app's directory, which ends the worker between missions."""
        if not self.code or time.monotonic() - self.code_checked < CODE_CHECK_SECONDS:
            return False
        self.code_checked = time.monotonic()
        current = deployed_code()
        return bool(current) and current != self.code

    def _degrade(self, error: str) -> None:
        LOG.warning("VP worker degraded: vp_id=%s err=%s", self.vp.vp_id, error)
        state.set_session_status(self.database, self.vp.vp_id, "degraded", error)

    def _put_session(self, status: str) -> None:
        state.put_session(
            self.database,
            self.vp.vp_id,
            runtime_id=self.vp.runtime_id,
            status=status,
            workspace_dir=str(self.vp.workspace_root),
            metadata=self.vp.metadata,
            lease_owner=self.worker_id,
        )


def deployed_code() -> str:
    """In August, the commit of the app's directory; empty without `.git`."""
    if not shape.AUGUST:
        return ""
    words = ["git", "-C", str(APP_DIR), "rev-parse", "HEAD"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""
