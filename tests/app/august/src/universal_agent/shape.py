"""The shape of this tree: February 2026, or August 2026 if `AUGUST` is true."""

AUGUST = True
