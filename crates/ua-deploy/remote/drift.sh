# Prints the paths of a release that are not as it put them there, a line each. Files that the server writes, which the
# profile preserves, are left out.
# usage: drift STATE APP ID

main() {
    release=$1/releases/$3
    tab=$(printf '\t')
    LC_ALL=C
    export LC_ALL
    [ -f "$release/manifest" ] && cd -P "$2" || exit 1
    placed | awk -F '\t' '$1 != "l" { print $2 "  " $3 }' | sha256sum --check --quiet - 2>/dev/null |
        sed 's/: FAILED\( open or read\)\{0,1\}$//'
    placed | awk -F '\t' '$1 == "l" { print $2 "\t" $3 }' | while IFS=$tab read -r target path; do
        [ "$(readlink -- "./$path")" = "$target" ] || printf '%s\n' "$path"
    done
}

placed() {
    awk -F '\t' '
        FILENAME == ARGV[1] { if ($1 == "preserve") preserve[$2] = 1; next }
        !($3 in preserve)
    ' "$release/orders" "$release/manifest"
}

main "$@"
