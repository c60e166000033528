"""Code of the gateway outside of `src/`."""
