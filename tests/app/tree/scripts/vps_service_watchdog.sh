#!/bin/sh
# Run by a timer as root: starts what is not active, restarts what answers badly several times in a row.
set -eu

threshold=${UA_WATCHDOG_HEALTH_FAIL_THRESHOLD:-3}
seconds=${UA_WATCHDOG_HTTP_TIMEOUT_SECONDS:-3}
state=${UA_WATCHDOG_STATE_DIR:-/var/lib/universal-agent/watchdog}

restart() {
    echo "watchdog: restarting $1: $2"
    systemctl restart "$1" || echo "watchdog: $1 did not restart"
    rm -f "$state/$1"
}

check() {
    unit=$1 url=$2
    if ! systemctl is-active --quiet "$unit"; then
        restart "$unit" 'not active'
        return
    fi
    [ -n "$url" ] || return 0
    # 000 when nothing answers; a client error still shows a living server.
    status=$(curl --silent --output /dev/null --max-time "$seconds" --write-out '%{http_code}' "$url") || status=000
    if [ "$status" -ge 100 ] && [ "$status" -lt 500 ]; then
        rm -f "$state/$unit"
        return
    fi
    echo x >>"$state/$unit"
    if [ "$(wc -l <"$state/$unit")" -ge "$threshold" ]; then
        restart "$unit" "health $status"
    fi
}

mkdir -p "$state"
check universal-agent-gateway http://127.0.0.1:8002/api/v1/health
check universal-agent-api http://127.0.0.1:8001/api/health
check universal-agent-webui http://127.0.0.1:3000/
check universal-agent-telegram ''
