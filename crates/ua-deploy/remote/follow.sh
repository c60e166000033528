# Tells how an activation goes, until its unit has ended:
#   l LINE    of its log          . still alive
#   o LINE    of its log, written before anybody listened
#   a STEP    that was under way then
#   c CHECK   when it has ended   r RECORD, last
# usage: follow STATE ID {forward|restore|any} …

follow() {
    release=$1/releases/$2 verb=$3
    [ -d "$release" ] || { echo "there is no release $2 any more" >&2; exit 1; }
    pending=$1/pending
    if [ "$verb" = any ]; then verb=$(running "$2"); fi
    unit=ua-deploy-$verb-$2.service
    [ "$verb" != recover ] || unit=ua-deploy-recover.service
    sent=${ua_sent:-0} unknown=0 kind=l
    told=$(uptime_s)
    [ "$3" != any ] || kind=o
    while :; do
        # Asked before the log is read, so that nothing is missed at the end.
        active=$(systemctl show --property=ActiveState --value "$unit")
        lines=0
        [ ! -f "$release/log" ] || lines=$(wc -l <"$release/log")
        if [ "$lines" -gt "$sent" ]; then
            sed -n "$((sent + 1)),${lines}s/^/$kind /p" "$release/log"
            sent=$lines told=$(uptime_s)
        fi
        case $active in
            inactive | failed) booting "$2" || break ;;
            '')
                # systemd did not answer, which says nothing about the unit.
                unknown=$((unknown + 1))
                [ "$unknown" -lt 300 ] || break
                ;;
            *) unknown=0 ;;
        esac
        if [ "$kind" = o ]; then
            echo "a $(sed -n "1,${lines}s/^== //p" "$release/log" | tail -n 1)"
            kind=l
        fi
        # By the clock, since a round takes long on a busy machine.
        if [ "$(uptime_s)" -ge "$((told + 4))" ]; then
            echo .
            told=$(uptime_s)
        fi
        sleep 0.1
    done
    [ ! -f "$release/checks" ] || sed 's/^/c /' "$release/checks"
    sed 's/^/r /' "$release/record.json"
}

uptime_s() { cut -d . -f 1 /proc/uptime; }

# What is being done about a release now; forward if nothing is.
running() {
    if grep -qxF -- "$1" "$pending" 2>/dev/null && { booting "$1" || works ua-deploy-recover.service; }; then
        echo recover
        return
    fi
    for verb in restore confirm forward; do
        if works "ua-deploy-$verb-$1.service"; then break; fi
    done
    echo "$verb"
}

works() {
    case $(systemctl show --property=ActiveState --value "$1") in
        active | activating | deactivating | reloading) return 0 ;;
    esac
    return 1
}

# Is there still something to recover once the machine is up?
booting() {
    grep -qxF -- "$1" "$pending" 2>/dev/null || return 1
    case $(systemctl is-system-running) in
        initializing | starting) return 0 ;;
    esac
    return 1
}

follow "$@"
