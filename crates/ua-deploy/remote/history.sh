# Prints the history, oldest first, after a line that says who holds the lock, if somebody does.
# usage: history STATE

main() {
    if [ -f "$1/lock" ] && ! flock --shared --nonblock "$1/lock" true; then
        printf 'busy\t%s\n' "$(head -n 1 "$1/lock")"
    fi
    [ ! -f "$1/history.jsonl" ] || cat "$1/history.jsonl"
}

main "$@"
