"""Where work products lie. The package is named like the runtime directory on purpose."""

from universal_agent.paths import APP_DIR


def names() -> list[str]:
    """The newest work products, by name."""
    root = APP_DIR / "artifacts"
    return sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []
