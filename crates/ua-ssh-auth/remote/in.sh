# Gives back what it is given.
# usage: in TEXT

main() {
    printf '%s' "$1"
}

main "$@"
