#!/bin/sh
# Removes workspaces of sessions that nothing was written to for a day.
set -eu
find AGENT_RUN_WORKSPACES -mindepth 1 -maxdepth 1 -type d -name 'session_*' -mtime +0 -exec rm -rf {} +
