#!/usr/bin/env bash
# Starts the worker of one VP: start_vp_worker.sh VP_ID. uv replaces this shell as the main process, and forwards
# SIGTERM to Python.
set -eu

cd "$(dirname "$0")/.."
export UV_CACHE_DIR="$HOME/.cache/uv"
mkdir -p "$UV_CACHE_DIR"
exec uv run python -m universal_agent.vp.worker_main --vp-id "$1"
