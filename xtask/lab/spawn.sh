#!/bin/sh
# Starts a command that outlives its starter, in the given control groups, and prints its process id.
# usage: spawn.sh LOG [CONTROL_GROUP…] -- COMMAND…
set -eu

main() {
    log=$1
    shift
    while [ "$1" != -- ]; do
        echo $$ >"$1/cgroup.procs"
        shift
    done
    shift
    # What our starter holds open, such as a lock, is not held for as long as the lab is up.
    exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
    setsid "$@" </dev/null >>"$log" 2>&1 &
    echo $!
}

main "$@"
