"""The database of VP workers: its tables and all writes.

Columns, values and the order of writes are those of the real app, since a deploy reads these rows.
"""

import json
import os
import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from universal_agent import shape
from universal_agent.paths import APP_DIR

SCHEMA = """
CREATE TABLE IF NOT EXISTS vp_sessions (
  vp_id TEXT PRIMARY KEY, runtime_id TEXT NOT NULL, session_id TEXT, workspace_dir TEXT, status TEXT NOT NULL,
  lease_owner TEXT, lease_expires_at TEXT, last_heartbeat_at TEXT, last_error TEXT, metadata_json TEXT,
  created_at TEXT NOT NULL, updated_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS vp_missions (
  mission_id TEXT PRIMARY KEY, vp_id TEXT NOT NULL, run_id TEXT, status TEXT NOT NULL, mission_type TEXT,
  objective TEXT NOT NULL, budget_json TEXT, payload_json TEXT, result_ref TEXT, priority INTEGER DEFAULT 100,
  worker_id TEXT, claim_expires_at TEXT, cancel_requested INTEGER DEFAULT 0, created_at TEXT NOT NULL,
  started_at TEXT, completed_at TEXT, updated_at TEXT NOT NULL,
  FOREIGN KEY (vp_id) REFERENCES vp_sessions (vp_id)
);
CREATE TABLE IF NOT EXISTS vp_session_events (
  event_id TEXT PRIMARY KEY, vp_id TEXT NOT NULL, event_type TEXT NOT NULL, payload_json TEXT,
  created_at TEXT NOT NULL, FOREIGN KEY (vp_id) REFERENCES vp_sessions (vp_id)
);
CREATE TABLE IF NOT EXISTS vp_events (
  event_id TEXT PRIMARY KEY, mission_id TEXT NOT NULL, vp_id TEXT NOT NULL, event_type TEXT NOT NULL,
  payload_json TEXT, created_at TEXT NOT NULL, FOREIGN KEY (mission_id) REFERENCES vp_missions (mission_id)
);
"""

# Columns that August adds to an existing database, at the start of its first process.
AUGUST_COLUMNS = {
    "priority_tier": "TEXT NOT NULL DEFAULT 'background'",
    "source": "TEXT DEFAULT 'gateway'",
    "result_published": "INTEGER DEFAULT 0",
}
CLAIMABLE = "(status = 'queued' OR (status = 'running' AND claim_expires_at < ?))"


def vp_database() -> Path:
    """Path of the workers' database."""
    return Path(os.environ.get("UA_VP_DB_PATH") or APP_DIR / "AGENT_RUN_WORKSPACES" / "vp_state.db")


def connect(path: Path) -> sqlite3.Connection:
    """Open a database in WAL mode; create it and its directory if they are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=60)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("PRAGMA journal_mode = WAL")
    return database


def ensure_schema(database: sqlite3.Connection) -> None:
    """Create missing tables and columns."""
    database.executescript(SCHEMA)
    if shape.AUGUST:
        # Several processes start at the same time.
        database.execute("BEGIN IMMEDIATE")
        there = {row["name"] for row in database.execute("PRAGMA table_info(vp_missions)")}
        for name, kind in AUGUST_COLUMNS.items():
            if name not in there:
                database.execute(f"ALTER TABLE vp_missions ADD COLUMN {name} {kind}")
        database.commit()


def now(later: float = 0) -> str:
    """The time in the format of the tables, `later` seconds from now."""
    return (datetime.now(UTC) + timedelta(seconds=later)).isoformat()


def put_session(
    database: sqlite3.Connection,
    vp_id: str,
    *,
    runtime_id: str,
    status: str,
    workspace_dir: str,
    metadata: dict[str, str],
    lease_owner: str | None = None,
) -> None:
    """Insert or update a session. The times of the lease stay, and its owner unless one is given."""
    at = now()
    with database:
        database.execute(
            """
            INSERT INTO vp_sessions (vp_id, runtime_id, session_id, workspace_dir, status, lease_owner, metadata_json,
              created_at, updated_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (vp_id) DO UPDATE SET runtime_id = excluded.runtime_id, session_id = excluded.session_id,
              workspace_dir = excluded.workspace_dir, status = excluded.status,
              lease_owner = coalesce(excluded.lease_owner, lease_owner), metadata_json = excluded.metadata_json,
              updated_at = excluded.updated_at
            """,
            (vp_id, runtime_id, f"{vp_id}.external", workspace_dir, status, lease_owner, json.dumps(metadata), at, at),
        )


def set_session_status(database: sqlite3.Connection, vp_id: str, status: str, error: str) -> None:
    with database:
        database.execute(
            "UPDATE vp_sessions SET status = ?, last_error = ?, updated_at = ? WHERE vp_id = ?",
            (status, error, now(), vp_id),
        )


def take_lease(database: sqlite3.Connection, vp_id: str, owner: str, seconds: int) -> bool:
    """Take the lease. The session becomes `active`, although its worker is idle."""
    at = now()
    with database:
        taken = database.execute(
            """
            UPDATE vp_sessions SET lease_owner = ?, lease_expires_at = ?, last_heartbeat_at = ?, updated_at = ?,
              status = 'active'
            WHERE vp_id = ? AND status IN ('idle', 'active', 'paused', 'degraded', 'recovering')
              AND (lease_owner = ? OR lease_expires_at IS NULL OR lease_expires_at < ?)
            """,
            (owner, now(seconds), at, at, vp_id, owner, at),
        )
    return taken.rowcount == 1


def renew_lease(database: sqlite3.Connection, vp_id: str, owner: str, seconds: int) -> None:
    at = now()
    with database:
        database.execute(
            """
            UPDATE vp_sessions SET lease_expires_at = ?, last_heartbeat_at = ?, updated_at = ?
            WHERE vp_id = ? AND lease_owner = ?
            """,
            (now(seconds), at, at, vp_id, owner),
        )


def drop_lease(database: sqlite3.Connection, vp_id: str, owner: str) -> None:
    with database:
        database.execute(
            """
            UPDATE vp_sessions SET lease_owner = NULL, lease_expires_at = NULL, updated_at = ?
            WHERE vp_id = ? AND lease_owner = ?
            """,
            (now(), vp_id, owner),
        )


def queue_mission(database: sqlite3.Connection, mission: dict[str, object]) -> None:
    """Insert a queued mission."""
    at = now()
    with database:
        database.execute(
            """
            INSERT INTO vp_missions (mission_id, vp_id, status, mission_type, objective, payload_json, priority,
              cancel_requested, created_at, updated_at)
            VALUES (:mission_id, :vp_id, 'queued', :mission_type, :objective, :payload_json, :priority, 0, :at, :at)
            """,
            mission | {"at": at},
        )


def claim_mission(database: sqlite3.Connection, vp_id: str, worker_id: str, seconds: int) -> sqlite3.Row | None:
    """Claim the next mission: a queued one, or a running one whose claim has expired."""
    at = now()
    with database:
        database.execute("BEGIN IMMEDIATE")
        row = database.execute(
            f"""
            SELECT mission_id FROM vp_missions WHERE vp_id = ? AND cancel_requested = 0 AND {CLAIMABLE}
            ORDER BY priority, created_at LIMIT 1
            """,
            (vp_id, at),
        ).fetchone()
        if row is None:
            return None
        database.execute(
            """
            UPDATE vp_missions SET status = 'running', worker_id = ?, claim_expires_at = ?,
              started_at = coalesce(started_at, ?), updated_at = ?
            WHERE mission_id = ?
            """,
            (worker_id, now(seconds), at, at, row["mission_id"]),
        )
    return get_mission(database, row["mission_id"])


def get_mission(database: sqlite3.Connection, mission_id: str) -> sqlite3.Row | None:
    return database.execute("SELECT * FROM vp_missions WHERE mission_id = ?", (mission_id,)).fetchone()


def renew_claim(database: sqlite3.Connection, mission_id: str, worker_id: str, seconds: int) -> None:
    with database:
        database.execute(
            """
            UPDATE vp_missions SET claim_expires_at = ?, updated_at = ?
            WHERE mission_id = ? AND status = 'running' AND worker_id = ?
            """,
            (now(seconds), now(), mission_id, worker_id),
        )


def end_mission(database: sqlite3.Connection, mission_id: str, status: str, result: str | None) -> None:
    """End a mission, regardless of its status. Its `worker_id` stays."""
    at = now()
    with database:
        database.execute(
            """
            UPDATE vp_missions SET status = ?, result_ref = coalesce(?, result_ref), completed_at = ?,
              claim_expires_at = NULL, updated_at = ?
            WHERE mission_id = ?
            """,
            (status, result, at, at, mission_id),
        )


def end_stale_missions(database: sqlite3.Connection) -> int:
    """End every running mission whose claim has expired, even if its worker is alive."""
    stale = database.execute(
        "SELECT * FROM vp_missions WHERE status = 'running' AND claim_expires_at < ?", (now(),)
    ).fetchall()
    for row in stale:
        status = "cancelled" if row["cancel_requested"] else "failed"
        end_mission(database, row["mission_id"], status, None)
        tell_mission(database, row, f"vp.mission.{status}", {"reason": "stale_running_reconciled"})
    return len(stale)


def tell_session(database: sqlite3.Connection, vp_id: str, kind: str, payload: dict[str, object]) -> None:
    """Append an event about a session."""
    with database:
        database.execute(
            "INSERT INTO vp_session_events VALUES (?, ?, ?, ?, ?)",
            (f"vp-session-event-{uuid.uuid4().hex}", vp_id, kind, json.dumps(payload), now()),
        )


def tell_mission(database: sqlite3.Connection, mission: sqlite3.Row, kind: str, payload: dict[str, object]) -> None:
    """Append an event about a mission."""
    with database:
        database.execute(
            "INSERT INTO vp_events VALUES (?, ?, ?, ?, ?, ?)",
            (f"vp-event-{uuid.uuid4().hex}", mission["mission_id"], mission["vp_id"], kind, json.dumps(payload), now()),
        )
