# Says as whom it runs.
# usage: hello

main() {
    id -u
}

main "$@"
