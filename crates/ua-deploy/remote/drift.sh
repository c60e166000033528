# Prints the paths of a release that are not as it put them there, a line each.
# usage: drift STATE ID

main() {
    differing "$1/releases/$2"
}

main "$@"
