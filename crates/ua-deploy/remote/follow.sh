# Tells how an activation goes, until its unit has ended:
#   l LINE    of its log          . still alive
#   c CHECK   when it has ended   r RECORD, last
# usage: follow STATE ID {forward|restore|any} …

follow() {
    release=$1/releases/$2 verb=$3
    [ -d "$release" ] || { echo "there is no release $2 any more" >&2; exit 1; }
    if [ "$verb" = any ]; then verb=$(running "$2"); fi
    unit=ua-deploy-$verb-$2.service
    sent=${ua_sent:-0} quiet=0 unknown=0
    while :; do
        # Asked before the log is read, so that nothing is missed at the end.
        active=$(systemctl show --property=ActiveState --value "$unit")
        lines=0
        [ ! -f "$release/log" ] || lines=$(wc -l <"$release/log")
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

# What is being done about a release now; forward if nothing is.
running() {
    for verb in restore confirm forward; do
        case $(systemctl show --property=ActiveState --value "ua-deploy-$verb-$1.service") in
            active | activating | deactivating | reloading) break ;;
        esac
    done
    echo "$verb"
}

follow "$@"
