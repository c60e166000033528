"""The gateway, port 8002: what nginx publishes as the public API."""

import hmac
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from universal_agent import release, runtime
from universal_agent.web import Answer, serve


def health(_headers: Mapping[str, str]) -> Answer:
    return 200, {"status": "healthy"}


def deployment_profile(headers: Mapping[str, str]) -> Answer:
    if not _is_operator(headers):
        return 401, {"detail": "Unauthorized"}
    return 200, {
        "profile": "vps",
        "vp_dispatch_mode": os.environ.get("UA_VP_DISPATCH_MODE", ""),
        "vp_enabled_ids": os.environ.get("UA_VP_ENABLED_IDS", "").split(","),
    }


def remote_sync(headers: Mapping[str, str]) -> Answer:
    """The operator's toggle, sent exactly as it is on disk so that a test can make it say anything."""
    if not _is_operator(headers):
        return 401, {"detail": "Unauthorized"}
    file = Path(os.environ.get("UA_REMOTE_SYNC_FILE", "/var/lib/universal-agent/remote_sync.json"))
    return 200, file.read_text(encoding="utf-8") if file.is_file() else {"enabled": False}


def _is_operator(headers: Mapping[str, str]) -> bool:
    token = os.environ.get("UA_OPS_TOKEN", "")
    given = headers.get("x-ua-ops-token") or headers.get("authorization", "").removeprefix("Bearer ")
    return bool(token) and hmac.compare_digest(given.encode(), token.encode())


def write_memory() -> None:
    """Change two tracked files, as the real gateway does: a deploy has to leave them as they are here."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    capabilities = Path(__file__).parent / "prompt_assets" / "capabilities.last_good.md"
    memory = release.APP_DIR / "Memory_System" / "ua_shared_workspace" / "MEMORY.md"
    try:
        capabilities.write_text(f"# Capabilities\n\nLast good: {now}\n", encoding="utf-8")
        with memory.open("a", encoding="utf-8") as file:
            file.write(f"- {now} gateway started\n")
    except OSError as error:
        runtime.log(f"gateway: memory: {error}")


if __name__ == "__main__":
    write_memory()
    serve(
        "gateway",
        8002,
        {
            "/api/v1/health": health,
            "/api/v1/ops/deployment/profile": deployment_profile,
            "/api/v1/ops/remote-sync": remote_sync,
        },
    )
