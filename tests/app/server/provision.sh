#!/bin/sh
# Makes a machine look like the production server before the app is there; the app itself comes by deploy.
# Run as root, any number of times: provision.sh DIRECTORY_OF_THESE_FILES PUBLIC_ADDRESS [--august] [--watchdog]
set -eu

usage() {
    echo "usage: ${0##*/} DIRECTORY PUBLIC_ADDRESS [--august] [--watchdog]" >&2
    exit 2
}

user_and_directories() {
    id ua >/dev/null 2>&1 ||
        useradd --system --user-group --create-home --home-dir /home/ua --shell /bin/bash ua
    install -d -o ua -g ua -m 0755 "$app" \
        "$app/AGENT_RUN_WORKSPACES" "$app/Memory_System" "$app/artifacts" "$app/logs" \
        /var/lib/universal-agent /var/lib/universal-agent/heartbeat
}

random() { od -An -tx1 -N24 /dev/urandom | tr -d ' \n'; }

# Installs stdin as FILE (OWNER MODE FILE), unless FILE exists: tokens belong to this machine.
keep() {
    owner=$1 mode=$2 file=$3
    [ ! -e "$file" ] || return 0
    new=$(mktemp)
    cat >"$new"
    install -o "${owner%:*}" -g "${owner#*:}" -m "$mode" "$new" "$file"
    rm -f "$new"
}

env_file() {
    keep root:ua 0640 "$app/.env" <<END
UA_DEPLOYMENT_PROFILE=vps
UA_OPS_TOKEN=$(random)
UA_VP_EXTERNAL_DISPATCH_ENABLED=1
UA_VP_DISPATCH_MODE=db_pull
UA_VP_ENABLED_IDS=vp.general.primary,vp.coder.primary
END
}

# The `.env` of August holds credentials for the secrets service, and no other keys of the app.
august_env_file() {
    keep ua:ua 0600 "$app/.env" <<END
INFISICAL_CLIENT_ID="lab"
INFISICAL_CLIENT_SECRET="$(random)"
INFISICAL_PROJECT_ID="lab"
INFISICAL_ENVIRONMENT="production"
UA_DEPLOYMENT_PROFILE="vps"
UA_MACHINE_SLUG="vps-hq-production"
UA_INFISICAL_ENABLED="1"
END
    install -d -o root -g ua -m 0750 /etc/ua-secrets
    token=$(random)
    keep root:ua 0640 /etc/ua-secrets/production.env <<END
UA_OPS_TOKEN=$token
UA_DASHBOARD_OPS_TOKEN=$token
UA_VP_EXTERNAL_DISPATCH_ENABLED=1
UA_VP_DISPATCH_MODE=db_pull
UA_VP_ENABLED_IDS=vp.general.primary,vp.coder.primary
END
    install -m 0755 "$files/ua-secrets" /usr/local/bin/ua-secrets
    # In August it is rendered from the secrets at each deploy.
    install -d -o ua -g ua -m 0755 "$app/web-ui"
    sed -n 's/^UA_DASHBOARD_OPS_TOKEN=/&/p' /etc/ua-secrets/production.env | keep ua:ua 0640 "$app/web-ui/.env.local"
}

# Renders a unit from its template: NAME DESCRIPTION.
unit() {
    sed -e "s|__APP_ROOT__|$app|g" -e 's|__APP_USER__|ua|g' -e "s|__UNIT_DESCRIPTION__|$2|g" \
        -e 's|__WEBUI_PORT__|3000|g' -e 's|__GATEWAY_UNIT__|universal-agent-gateway.service|g' \
        "$files/$1.service.template" >"/etc/systemd/system/$1.service"
}

units() {
    unit universal-agent-gateway 'Universal Agent gateway'
    unit universal-agent-api 'Universal Agent API server'
    unit universal-agent-webui 'Universal Agent web UI'
    unit universal-agent-telegram 'Universal Agent Telegram bot'
    install -m 0644 "$files"/universal-agent-*.service "$files"/universal-agent-*.timer /etc/systemd/system/
    # In August the timer has a wall clock anchor, which survives a reload.
    [ -z "$august" ] || sed -i -e '/^OnBootSec=/d' -e 's/^OnUnitActiveSec=.*/OnCalendar=*:*:0\/30/' \
        /etc/systemd/system/universal-agent-service-watchdog.timer
    systemctl daemon-reload
    # Not started: there is nothing to run yet.
    systemctl enable --quiet universal-agent-gateway universal-agent-api universal-agent-webui \
        universal-agent-telegram
    [ -n "$watchdog" ] || return 0
    systemctl enable --quiet --now universal-agent-service-watchdog.timer
    # As the app's installer does: the timer counts from its last run. It fails before the first deploy.
    systemctl start universal-agent-service-watchdog.service || :
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
    [ $# -ge 2 ] || usage
    files=$1 address=$2 august='' watchdog=''
    shift 2
    for option in "$@"; do
        case $option in
            --august) august=yes ;;
            --watchdog) watchdog=yes ;;
            *) usage ;;
        esac
    done
    app=/opt/universal_agent
    user_and_directories
    if [ -n "$august" ]; then august_env_file; else env_file; fi
    units
    public_names
}

main "$@"
