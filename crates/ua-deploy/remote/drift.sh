# Prints the paths of a release that are not as it put them there, a line each, after pushed<TAB>LINE for what of the
# ledger is not settled.
# usage: drift STATE ID

main() {
    state=$1
    open_pushes | sed "s/^/pushed$(printf '\t')/"
    differing "$state/releases/$2"
}

main "$@"
