"""The gateway, port 8002, published by nginx as the public API."""

import functools
import hmac
import os
import sqlite3
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from universal_agent import faults, heartbeat, infisical_loader, runtime, shape
from universal_agent.durable import state
from universal_agent.paths import APP_DIR
from universal_agent.web import Answer, Routes, serve


def health(_headers: Mapping[str, str]) -> Answer:
    """Report whether the database of the gateway can be read."""
    try:
        database = sqlite3.connect(f"file:{_runtime_database()}?mode=ro", uri=True, timeout=5)
        database.execute("SELECT 1")
        database.close()
        error = None
    except sqlite3.Error as failed:
        error = str(failed)
    return 503 if error else 200, {
        "status": "unhealthy" if error else "healthy",
        "timestamp": datetime.now(UTC).isoformat(),
        "version": "1.0.0",
        "db_status": "error" if error else "connected",
        "db_error": error,
    }


def deployment_profile(headers: Mapping[str, str]) -> Answer:
    if not _is_operator(headers):
        return 401, {"detail": "Unauthorized"}
    return 200, {"deployment_profile": {"profile": os.environ.get("UA_DEPLOYMENT_PROFILE", "local_workstation")}}


def remote_sync(headers: Mapping[str, str]) -> Answer:
    """The operator's toggle, sent as it is on disk, so that a test controls every byte."""
    if not _is_operator(headers):
        return 401, {"detail": "Unauthorized"}
    file = Path(os.environ.get("UA_REMOTE_SYNC_FILE", "/var/lib/universal-agent/remote_sync.json"))
    off = {"enabled": False, "default_enabled": False, "config_key": "remote_debug.local_workspace_sync_enabled"}
    return 200, file.read_text(encoding="utf-8") if file.is_file() else off


def version(_headers: Mapping[str, str]) -> Answer:
    return 200, _version()


@functools.cache
def _version() -> dict[str, str | None]:
    """Ask git at the first request. The commit is null if the app's directory has no `.git`."""

    def git(*words: str) -> str | None:
        answer = subprocess.run(["git", "-C", str(APP_DIR), *words], capture_output=True, text=True, check=False)
        return answer.stdout.strip() or None if answer.returncode == 0 else None

    commit = faults.TOLD_COMMIT or git("rev-parse", "HEAD")
    return {
        "commit_sha": commit,
        "short_sha": commit[:8] if commit else None,
        "branch": git("rev-parse", "--abbrev-ref", "HEAD"),
        "process_started_at": STARTED_AT,
        "repo_root": str(APP_DIR),
    }


def _is_operator(headers: Mapping[str, str]) -> bool:
    token = os.environ.get("UA_OPS_TOKEN", "")
    given = headers.get("x-ua-ops-token") or headers.get("authorization", "").removeprefix("Bearer ")
    return bool(token) and hmac.compare_digest(given.encode(), token.encode())


def _runtime_database() -> Path:
    return Path(os.environ.get("UA_RUNTIME_DB_PATH") or APP_DIR / "AGENT_RUN_WORKSPACES" / "runtime_state.db")


def write_memory() -> None:
    """Write two files that February tracks; a deploy must preserve them."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    capabilities = Path(__file__).parent / "prompt_assets" / "capabilities.last_good.md"
    memory = APP_DIR / "Memory_System" / "ua_shared_workspace" / "MEMORY.md"
    try:
        capabilities.write_text(f"# Capabilities\n\nLast good: {now}\n", encoding="utf-8")
        with memory.open("a", encoding="utf-8") as file:
            file.write(f"- {now} gateway started\n")
    except OSError as error:
        runtime.LOG.warning("gateway: memory: %s", error)


def prepare() -> None:
    """Prepare both databases, and end missions with an expired claim."""
    own = state.connect(_runtime_database())
    own.execute("CREATE TABLE IF NOT EXISTS runs (run_id TEXT PRIMARY KEY)")
    own.close()
    workers = state.connect(state.vp_database())
    state.ensure_schema(workers)
    runtime.LOG.info("gateway: stale missions ended: %d", state.end_stale_missions(workers))
    workers.close()


STARTED_AT = datetime.now(UTC).isoformat()
ROUTES: Routes = {
    "/": lambda _headers: (200, {"name": "universal-agent-gateway", "version": "1.0.0", "status": "running"}),
    "/api/v1/health": health,
    "/api/v1/ops/deployment/profile": deployment_profile,
    "/api/v1/ops/remote-sync": remote_sync,
}

if __name__ == "__main__":
    runtime.start("gateway")
    infisical_loader.load_or_go_on()
    write_memory()
    prepare()
    heartbeat.start("gateway", "UA_PROCESS_HEARTBEAT_FILE")
    serve("gateway", 8002, ROUTES | ({"/api/v1/version": version} if shape.AUGUST else {}))
