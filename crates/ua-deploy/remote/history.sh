# Prints the history, oldest first.
# usage: history STATE

main() {
    [ ! -f "$1/history.jsonl" ] || cat "$1/history.jsonl"
}

main "$@"
