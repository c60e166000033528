"""Which state of the app this tree stands for: February 2026, or August 2026 where this is true."""

AUGUST = False
