"""The database that VP workers share with whoever gives them work."""

import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from universal_agent.release import APP_DIR

SCHEMA = """
CREATE TABLE IF NOT EXISTS vp_sessions (
  vp_id TEXT PRIMARY KEY,
  session_id TEXT,
  status TEXT NOT NULL,
  lease_owner TEXT,
  last_heartbeat_at TEXT,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS vp_missions (
  mission_id TEXT PRIMARY KEY,
  vp_id TEXT NOT NULL,
  status TEXT NOT NULL,
  seconds REAL NOT NULL,
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  created_at TEXT NOT NULL,
  started_at TEXT,
  completed_at TEXT
);
"""


def connect() -> sqlite3.Connection:
    """Open the database, making it if need be. Every statement commits by itself."""
    default = APP_DIR / "AGENT_RUN_WORKSPACES" / "vp_state.db"
    path = Path(os.environ.get("UA_VP_DB_PATH") or default)
    database = sqlite3.connect(path, timeout=10, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(SCHEMA)
    return database


def now() -> str:
    """The time as the tables hold it."""
    return datetime.now(UTC).isoformat()
