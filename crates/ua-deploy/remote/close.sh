# Ends the record of a deploy that never came to its activation.
# usage: close STATE ID JSON

main() {
    umask 077
    printf '%s\n' "$3" >"$1/releases/$2/record.json.new" &&
        mv "$1/releases/$2/record.json.new" "$1/releases/$2/record.json" &&
        printf '%s\n' "$3" >>"$1/history.jsonl"
}

main "$@"
