#!/bin/sh
# Puts the host's interpreters on a node's PATH.
# usage: interpreters.sh PYTHON_DIRECTORY NODE_DIRECTORY, as the node sees them; either may be absent
set -eu

# Links a program, if it exists.
link() {
    [ ! -x "$1" ] || ln -sfn "$1" "/usr/local/bin/${1##*/}"
}

main() {
    # Only under their versions: the system's own `python3` stays what it is.
    for python in "$1"/bin/python3.*; do
        case ${python##*/} in
            python3.*[!0-9]*) ;;
            *) link "$python" ;;
        esac
    done
    if [ -d "$1/lib" ]; then
        # An interpreter that was built for another place finds its library here.
        echo "$1/lib" >/etc/ld.so.conf.d/lab-python.conf
        ldconfig
    fi
    for program in node npm npx; do
        link "$2/bin/$program"
    done
}

main "$@"
