# Writes LINES numbered lines of 8 bytes.
# usage: out LINES

main() {
    awk -v lines="$1" 'BEGIN { for (line = 0; line < lines; line++) printf "%07d\n", line }'
}

main "$@"
