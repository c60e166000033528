"""VP workers: separate processes that run missions."""
