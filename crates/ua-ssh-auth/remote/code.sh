# Ends with the exit code it is given.
# usage: code CODE

main() {
    exit "$1"
}

main "$@"
