"""Directories of the app."""

from pathlib import Path

APP_DIR = Path(__file__).resolve().parents[2]
