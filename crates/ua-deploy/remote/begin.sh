# Opens a deploy: a record of it, and a private place for the upload.
# usage: begin STATE ID COMMIT BASE-JSON CLIENT-ADDRESS
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
    # With it even a deploy that fills the disk can say so.
    [ -f "$state/reserve" ] || head -c 1048576 /dev/zero >"$state/reserve" || exit 1
    release=$state/releases/$id
    mkdir "$release" || exit 1
    base=${base%\}}',"whois":"'$(whois "$5")'"}'
    printf '%s\n' "$base" >"$release/base.json" || exit 1
    write_record "${base%\}}"',"verdict":"begun","exit_code":1,"step":"upload","detail":"the upload did not end"}'
}

# What the tailnet calls whoever is connected: `node (login)`. Tailscale SSH does not tell from where that is, so that
# the address which the client gives is asked for then.
whois() {
    address=${SSH_CONNECTION%% *}
    timeout 5 tailscale whois "${address:-$1}" 2>/dev/null | awk '
        /^[^ ]/ { part = $1 }
        $1 == "Name:" { name[part] = $2 }
        END { if ("Machine:" in name) { sub(/[.]$/, "", name["Machine:"]); printf "%s (%s)", name["Machine:"], name["User:"] } }
    ' | tr -d '\000-\037\177"\134'
}

main "$@"
