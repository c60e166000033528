#!/bin/sh
# Puts the host's interpreters on a node's PATH.
# usage: interpreters.sh PYTHON_DIRECTORY NODE_DIRECTORY, as the node sees them; either may be absent
set -eu

# A link would do for Python itself, but an environment made by way of one looks for the library beside the link.
wrap() {
    program=/usr/local/bin/${1##*/}
    # What is there may be a link to the host's.
    rm -f "$program"
    printf '#!/bin/sh\nexec %s "$@"\n' "$1" >"$program"
    chmod 0755 "$program"
}

main() {
    # Only under their versions: the system's own `python3` stays what it is.
    for python in "$1"/bin/python3.*; do
        case ${python##*/} in
            python3.*[!0-9]*) ;;
            *) wrap "$python" ;;
        esac
    done
    if [ -d "$1/lib" ]; then
        # An interpreter that was built for another place finds its library here.
        echo "$1/lib" >/etc/ld.so.conf.d/lab-python.conf
        ldconfig
    fi
    for program in node npm npx; do
        [ ! -x "$2/bin/$program" ] || ln -sfn "$2/bin/$program" /usr/local/bin/
    done
}

main "$@"
