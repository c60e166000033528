"""The API server behind the web UI, port 8001."""

from collections.abc import Mapping
from datetime import UTC, datetime

# The two names below are what a careless exclude drops; without them this server cannot start.
from universal_agent import artifacts, faults, infisical_loader, runtime
from universal_agent.tools import tmp
from universal_agent.web import Answer, serve


def health(_headers: Mapping[str, str]) -> Answer:
    status = faults.API_HEALTH_STATUS
    return status, {
        "status": "healthy" if status == 200 else "unhealthy",
        "timestamp": datetime.now(UTC).isoformat(),
        "version": "2.0.0",
    }


def root(_headers: Mapping[str, str]) -> Answer:
    return 200, {"name": "universal-agent-api", "artifacts": artifacts.names(), "scratch": tmp.directory()}


if __name__ == "__main__":
    runtime.start("api")
    infisical_loader.load_or_go_on()
    serve("api", 8001, {"/": root, "/api/health": health})
