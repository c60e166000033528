"""Faults of a release, by service. A good release has none; tests commit edits of these lines."""

API_HEALTH_STATUS = 200
CRASH_AT_START: frozenset[str] = frozenset()
CRASH_AFTER_SECONDS: dict[str, float] = {}
IMPORT_FAILS_AFTER_SECONDS: dict[str, float] = {}
START_SECONDS: dict[str, float] = {}
HANGS: frozenset[str] = frozenset()
PORTS: dict[str, int] = {}
TOLD_COMMIT: str | None = None
