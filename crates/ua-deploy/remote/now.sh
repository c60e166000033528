# shellcheck shell=sh disable=SC2034
# Proves that what serves is right at this moment: prints what is, and exits 1 with what is not. Changes nothing.
# usage: now STATE ID ORDERS

main() {
    set -u
    umask 077
    tab=$(printf '\t')
    running=$1/releases/$2/running
    work=$(mktemp -d) || exit 1
    trap 'rm -rf "$work"' EXIT
    release=$work
    printf '%s' "$3" >"$release/orders" || exit 1
    read_orders || exit 1
    prove_once
    unit_states | awk -F '\t' '$2 != "active" { print $1 " is " $2 "/" $3 }' >>"$work/wrong"
    if [ -s "$work/wrong" ]; then
        joined <"$work/wrong"
        exit 1
    fi
    joined <"$work/right"
}

main "$@"
