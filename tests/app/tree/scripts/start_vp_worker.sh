#!/usr/bin/env bash
# Starts the worker of one VP: start_vp_worker.sh VP_ID. In February this shell remains the main process.
set -eu

cd "$(dirname "$0")/.."
export UV_CACHE_DIR="$HOME/.cache/uv"
mkdir -p "$UV_CACHE_DIR"
uv run python -m universal_agent.vp.worker_main --vp-id "$1"
exit $?
