# Tells how an activation goes, until its unit has ended:
#   l LINE    of its log          . still alive
#   c CHECK   when it has ended   r RECORD, last
# usage: follow STATE ID {forward|restore} …

follow() {
    release=$1/releases/$2 unit=ua-deploy-$3-$2.service
    sent=${ua_sent:-0} quiet=0 unknown=0
    while :; do
        # Asked before the log is read, so that nothing is missed at the end.
        active=$(systemctl show --property=ActiveState --value "$unit")
        lines=$(wc -l <"$release/log")
        if [ "$lines" -gt "$sent" ]; then
            sed -n "$((sent + 1)),${lines}s/^/l /p" "$release/log"
            sent=$lines quiet=0
        fi
        case $active in
            inactive | failed) break ;;
            '')
                # systemd did not answer, which says nothing about the unit.
                unknown=$((unknown + 1))
                [ "$unknown" -lt 150 ] || break
                ;;
            *) unknown=0 ;;
        esac
        quiet=$((quiet + 1))
        if [ "$quiet" -ge 20 ]; then
            echo .
            quiet=0
        fi
        sleep 0.2
    done
    [ ! -f "$release/checks" ] || sed 's/^/c /' "$release/checks"
    sed 's/^/r /' "$release/record.json"
}

follow "$@"
