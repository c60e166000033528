"""A module that a later release removes: after that deploy it must no longer be importable."""
