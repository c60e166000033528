#!/bin/sh
# Makes a machine look like the production server before the app is there; the app itself comes by deploy.
# Run as root, any number of times: provision.sh DIRECTORY_OF_THESE_FILES PUBLIC_ADDRESS [--watchdog]
set -eu

usage() {
    echo "usage: ${0##*/} DIRECTORY PUBLIC_ADDRESS [--watchdog]" >&2
    exit 2
}

user_and_directories() {
    id ua >/dev/null 2>&1 ||
        useradd --system --user-group --create-home --home-dir /home/ua --shell /bin/bash ua
    install -d -o ua -g ua -m 0755 "$app" \
        "$app/AGENT_RUN_WORKSPACES" "$app/Memory_System" "$app/artifacts" "$app/logs" \
        /var/lib/universal-agent /var/lib/universal-agent/heartbeat
}

env_file() {
    # Kept as it is once it exists: the token is this machine's own.
    [ ! -e "$app/.env" ] || return 0
    token=$(od -An -tx1 -N24 /dev/urandom | tr -d ' \n')
    new=$(mktemp)
    cat >"$new" <<END
UA_DEPLOYMENT_PROFILE=vps
UA_OPS_TOKEN=$token
UA_VP_EXTERNAL_DISPATCH_ENABLED=1
UA_VP_DISPATCH_MODE=db_pull
UA_VP_ENABLED_IDS=vp.general.primary,vp.coder.primary
END
    install -o root -g ua -m 0640 "$new" "$app/.env"
    rm -f "$new"
}

units() {
    install -m 0644 "$files"/universal-agent-*.service "$files"/universal-agent-*.timer /etc/systemd/system/
    systemctl daemon-reload
    # Not started: there is nothing to run yet.
    systemctl enable --quiet universal-agent-gateway universal-agent-api universal-agent-webui \
        universal-agent-telegram
    [ -z "$watchdog" ] || systemctl enable --quiet --now universal-agent-service-watchdog.timer
}

public_names() {
    for name in app api; do
        for kind in crt key; do
            [ -s "/etc/ssl/lab/$name.$kind" ] || {
                echo "provision: /etc/ssl/lab/$name.$kind is missing" >&2
                exit 1
            }
        done
    done
    sed "s/@PUBLIC_ADDRESS@/$address/" "$files/universal-agent.conf" \
        >/etc/nginx/sites-available/universal-agent.conf
    ln -sfn ../sites-available/universal-agent.conf /etc/nginx/sites-enabled/universal-agent.conf
    # Debian's own site listens on every address, the tailnet's included.
    rm -f /etc/nginx/sites-enabled/default
    install -D -m 0644 "$files/nginx-wait-for-address.conf" \
        /etc/systemd/system/nginx.service.d/wait-for-address.conf
    systemctl daemon-reload
    systemctl enable --quiet nginx
    # A reload that cannot bind the address says nothing; this does.
    nginx -t -q
    systemctl reload-or-restart nginx
}

main() {
    case $#,${3-} in
        2, | 3,--watchdog) ;;
        *) usage ;;
    esac
    files=$1 address=$2 watchdog=${3-}
    app=/opt/universal_agent
    user_and_directories
    env_file
    units
    public_names
}

main "$@"
