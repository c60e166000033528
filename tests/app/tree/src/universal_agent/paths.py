"""Where the app lies."""

from pathlib import Path

APP_DIR = Path(__file__).resolve().parents[2]
