# Adds to the record of a release what its client found at the public names.
# usage: smoked STATE ID WORD

main() {
    umask 077
    state=$1 release=$1/releases/$2
    exec 9<>"$state/lock" || exit 1
    flock --wait 10 9 || exit 1
    line=$(cat "$release/record.json") && [ -n "$line" ] || exit 1
    # Asked again it is the later answer that counts.
    line=$(printf '%s' "$line" | sed 's/,"public":"[a-z]*"//')
    write_record "${line%\}}"',"public":"'"$3"'"}'
}

main "$@"
