"""Helpers of the services."""
