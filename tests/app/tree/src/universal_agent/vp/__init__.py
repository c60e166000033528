"""VP workers: processes of their own that carry out missions."""
