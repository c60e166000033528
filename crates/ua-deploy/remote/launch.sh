# Starts the activation in a unit of its own, which nothing that happens to this connection can end. Sent together
# with follow.sh, which then tells how it goes.
# usage: launch STATE ID {forward|restore} ORDERS MANIFEST ACTIVATE SECONDS

launch() {
    state=$1 id=$2 verb=$3
    umask 077
    release=$state/releases/$id
    [ -d "$release" ] || { echo "there is no release $id" >&2; exit 1; }
    if [ "$verb" = forward ]; then
        printf '%s' "$4" >"$release/orders" &&
            printf '%s' "$5" >"$release/manifest" &&
            printf '%s' "$6" >"$release/activate" &&
            chmod 0700 "$release/activate" &&
            : >"$release/log" || exit 1
    fi
    # What the log already holds was followed before.
    ua_sent=$(wc -l <"$release/log")
    export ua_sent
    # The checks are of this run alone.
    : >"$release/checks" || exit 1
    seconds=$7
    survive_reboot || exit 1
    # However the unit ends, SIGKILL included, systemd has what it was cut off from recovered.
    set -- --quiet --collect --unit="ua-deploy-$verb-$id" --description="ua-deploy $verb $id" \
        --property=RuntimeMaxSec="$seconds" --property=TimeoutStopSec="$seconds" \
        --property=ExecStopPost="/bin/sh $release/activate $state $id recover"
    watchdog=$(awk -F '\t' '$1 == "watchdog" { print $2 }' "$release/orders")
    if [ -n "$watchdog" ] && held "$watchdog" "$verb"; then
        # In any case the timer is started again.
        set -- "$@" "--property=ExecStopPost=-/bin/systemctl start --no-block $watchdog"
    fi
    systemd-run "$@" /bin/sh "$release/activate" "$state" "$id" "$verb" >&2 || exit 1
}

# A machine that is rebooted in the middle puts back what was there before as soon as it is up.
survive_reboot() {
    unit=/etc/systemd/system/ua-deploy-recover.service
    text="[Unit]
Description=Recover from a deploy that a reboot cut off
ConditionPathExists=$state/pending
After=multi-user.target

[Service]
Type=exec
ExecStart=/bin/sh -c 'for id in \$\$(cat $state/pending); do /bin/sh $state/releases/\$\$id/activate $state \$\$id recover; done'

[Install]
WantedBy=multi-user.target"
    if [ "$(cat "$unit" 2>/dev/null)" = "$text" ] && systemctl is-enabled --quiet ua-deploy-recover.service; then return 0; fi
    printf '%s\n' "$text" >"$unit.new" && chmod 0644 "$unit.new" && mv "$unit.new" "$unit" && systemctl daemon-reload &&
        systemctl enable --quiet ua-deploy-recover.service
}

# Is the timer to run afterwards? Right after an activation it may not be back yet, though it is enabled.
held() {
    systemctl is-active --quiet "$1" || { [ "$2" = restore ] && systemctl is-enabled --quiet "$1"; }
}

launch "$@"
