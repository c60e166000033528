# Ends the record of a release that serves: its client has seen so over a fresh connection.
# usage: confirm STATE ID WHO
# exits 30 if a deploy is being activated, 1 and says why if this is not the release to confirm

main() {
    state=$1 id=$2 release=$1/releases/$2
    umask 077
    exec 9<>"$state/lock" || exit 1
    flock --wait 10 9 || { head -n 1 "$state/lock" && exit 30; }
    case $(cat "$release/record.json") in
        *'"verdict":"ok"'*) exit 0 ;;
        *'"verdict":"unconfirmed"'*) ;;
        *)
            echo "release $id does not serve" >&2
            exit 1
            ;;
    esac
    if ! newest; then
        echo "another release was put in place after $id" >&2
        exit 1
    fi
    # In this order: what expires looks at `confirmed` under the same lock.
    : >"$release/confirmed" || exit 1
    base=$(cat "$release/base.json") || exit 1
    who=$(printf '%s' "$3" | tr -d '\000-\037\177"\134')
    printf '%s,"verdict":"ok","exit_code":0,"step":"confirm","serving":"new","detail":"release %s serves, confirmed by %s","ended_at":"%s"}\n' \
        "${base%\}}" "$id" "$who" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$release/record.json.new" || exit 1
    mv "$release/record.json.new" "$release/record.json" || exit 1
    cat "$release/record.json" >>"$state/history.jsonl" || exit 1
    systemctl stop "ua-deploy-confirm-$id.timer" 2>/dev/null || :
}

# Was nothing put in place after this release?
newest() {
    passed=''
    for dir in "$state"/releases/*; do
        [ -z "$passed" ] || [ ! -f "$dir/switched" ] || return 1
        [ "$dir" != "$release" ] || passed=yes
    done
}

main "$@"
