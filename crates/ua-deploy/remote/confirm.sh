# Ends the record of a release that serves: its client has seen so over a fresh connection.
# usage: confirm STATE ID WHO
# exits 30 and prints the holder if a deploy is being activated, 1 and says why if this is not a release to confirm

main() {
    state=$1 id=$2 release=$1/releases/$2
    umask 077
    who=$(printf '%s' "$3" | tr -d '\000-\037\177"\134')
    exec 9<>"$state/lock" || exit 1
    flock --wait 10 9 || { head -n 1 "$state/lock" && exit 30; }
    printf '%s, since %s\n' "ua-deploy confirm $id by $who" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$state/lock"
    case $(cat "$release/record.json") in
        *'"verdict":"ok"'*) exit 0 ;;
        *'"verdict":"unconfirmed"'*) ;;
        *) refuse "release $id does not serve" ;;
    esac
    newest || refuse "another release was put in place after $id"
    down=$(awk -F '\t' '$1 == "unit" { print $2 }' "$release/orders" | while IFS= read -r unit; do
        systemctl is-active --quiet "$unit" </dev/null || printf ' %s' "$unit"
    done)
    [ -z "$down" ] || refuse "these units do not run any more:$down"
    base=$(cat "$release/base.json") || exit 1
    # From here on it does not expire: that looks at the record, under the same lock.
    line=$(printf '%s,"verdict":"ok","exit_code":0,"step":"confirm","serving":"new","detail":"release %s serves, confirmed by %s","ended_at":"%s","seconds":%s}' \
        "${base%\}}" "$id" "$who" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        "$(($(date +%s) - $(stat -c %Y "$release/base.json")))")
    write_record "$line" || exit 1
    forget_pending
    [ ! -f "$release/deadline" ] || systemctl stop "ua-deploy-confirm-$id.timer" 2>/dev/null || :
}

refuse() {
    echo "$1" >&2
    exit 1
}

main "$@"
