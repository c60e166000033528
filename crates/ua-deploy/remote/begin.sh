# Opens a deploy: a record of it, and a private place for the upload.
# usage: begin STATE ID COMMIT BASE-JSON
# exits 30 and prints the holder if a deploy is being activated

main() {
    state=$1 id=$2 commit=$3 base=$4
    umask 077
    mkdir -p "$state" || exit 1
    if [ -L "$state" ] || [ "$(stat -c %u "$state")" != "$(id -u)" ]; then
        echo "$state is not a directory of our own" >&2
        exit 1
    fi
    chmod 0700 "$state" || exit 1
    mkdir -p "$state/incoming/$commit/tree" "$state/build" "$state/releases" || exit 1
    : >>"$state/lock" || exit 1
    if ! flock --shared --nonblock "$state/lock" true; then
        head -n 1 "$state/lock"
        exit 30
    fi
    mkdir "$state/releases/$id" || exit 1
    printf '%s\n' "$base" >"$state/releases/$id/base.json" || exit 1
    record=${base%\}}',"verdict":"begun","exit_code":1,"step":"upload","detail":"the upload did not end"}'
    printf '%s\n' "$record" >"$state/releases/$id/record.json" || exit 1
    printf '%s\n' "$record" >>"$state/history.jsonl" || exit 1
}

main "$@"
