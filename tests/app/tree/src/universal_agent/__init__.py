"""The Universal Agent app, reduced to what a deploy can see of it."""
