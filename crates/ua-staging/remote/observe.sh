# Says what is served. Changes nothing.
# usage: observe SECONDS

main() {
    look "$1"
}

main "$@"
