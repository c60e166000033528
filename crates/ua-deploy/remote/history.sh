# Prints the history, oldest first, after lines that say who holds the lock and at which step its deploy is, if somebody does.
# usage: history STATE

main() {
    if [ -f "$1/lock" ] && ! flock --shared --nonblock "$1/lock" true; then
        holder=$(head -n 1 "$1/lock")
        printf 'busy\t%s\n' "$holder"
        id=$(echo "$holder" | awk '$1 == "ua-deploy" { print $3 }')
        [ -z "$id" ] || [ ! -f "$1/releases/$id/step" ] || printf 'step\t%s\n' "$(cat "$1/releases/$id/step")"
    fi
    [ ! -f "$1/history.jsonl" ] || cat "$1/history.jsonl"
}

main "$@"
