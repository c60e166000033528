# Prints what became of a release: pushed<TAB>LINE for what of the ledger is not settled, the paths that are not as it
# put them there, a line each, and unit<TAB>NAME<TAB>STATE for every unit that it runs.
# usage: drift STATE ID

main() {
    state=$1
    open_pushes | sed "s/^/pushed$(printf '\t')/"
    differing "$state/releases/$2" || exit 1
    awk -F '\t' '$1 == "unit" { print $2 }' "$state/releases/$2/orders" |
        xargs -r systemctl show --property=Id,ActiveState |
        awk '
            { at = index($0, "="); key = substr($0, 1, at - 1); value = substr($0, at + 1) }
            key == "Id" { id = value }
            key == "ActiveState" { state = value }
            id != "" && state != "" { print "unit\t" id "\t" state; id = state = "" }
        '
}

main "$@"
