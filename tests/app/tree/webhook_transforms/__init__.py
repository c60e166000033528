"""Beside `src/`, and part of what the gateway runs all the same: it loads these at its first webhook."""
