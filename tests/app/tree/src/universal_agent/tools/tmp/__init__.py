"""Scratch files. The package is named like the runtime directory on purpose."""

import tempfile


def directory() -> str:
    """Where scratch files go."""
    return tempfile.gettempdir()
