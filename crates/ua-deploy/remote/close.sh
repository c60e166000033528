# shellcheck shell=sh disable=SC2034
# Ends the record of a deploy that never came to its activation.
# usage: close STATE ID FIELDS (JSON, without braces)

main() {
    umask 077
    state=$1 release=$1/releases/$2
    # It may have begun after all, though nobody heard of it: then it ends its record itself.
    case $(cat "$release/record.json") in
        *'"verdict":"begun"'*) ;;
        *) exit 0 ;;
    esac
    base=$(cat "$release/base.json") && [ -n "$base" ] || exit 1
    write_record "${base%\}},$3}"
}

main "$@"
