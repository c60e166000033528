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
    setsid "$@" </dev/null >>"$log" 2>&1 &
    echo $!
}

main "$@"
