# Prints the paths of a release that are not as it put them there, a line each. Files that the server writes, which the
# profile preserves, are left out.
# usage: drift STATE ID

main() {
    release=$1/releases/$2
    tab=$(printf '\t')
    LC_ALL=C
    export LC_ALL
    # Silence means that nothing differs, so whatever keeps us from comparing is said.
    command -v sha256sum >/dev/null || fail 'there is no sha256sum command'
    if [ ! -r "$release/manifest" ] || [ ! -r "$release/orders" ]; then fail "release $2 has no lists any more"; fi
    app=$(awk -F '\t' '$1 == "app" { print $2; exit }' "$release/orders")
    if [ -z "$app" ] || ! cd -P "$app"; then fail "there is no directory of the app: $app"; fi
    # What is no file any more is not opened.
    placed | while IFS=$tab read -r kind what path; do
        case $kind in
            l) [ "$(readlink -- "./$path")" = "$what" ] || printf '%s\n' "$path" ;;
            *) is_file "$path" || printf '%s\n' "$path" ;;
        esac
    done
    placed | while IFS=$tab read -r kind what path; do
        if [ "$kind" != l ] && is_file "$path"; then printf '%s  %s\n' "$what" "$path"; fi
    done | sha256sum --check --quiet - 2>/dev/null | sed 's/: FAILED\( open or read\)\{0,1\}$//'
}

fail() {
    echo "$1" >&2
    exit 1
}

is_file() { [ -f "./$1" ] && [ ! -L "./$1" ]; }

placed() {
    awk -F '\t' '
        FILENAME == ARGV[1] { if ($1 == "preserve") preserve[$2] = 1; next }
        !($3 in preserve)
    ' "$release/orders" "$release/manifest"
}

main "$@"
