#!/bin/sh
# Furnishes the lab's own mount and network namespaces, inside of which it runs.
# usage: namespace.sh BRIDGE_ADDRESS CACHE MOUNT_POINT_FOR_CACHE
set -eu

main() {
    # The lab's internet: whatever is plugged into this bridge can talk to each other and to nobody else.
    ip link set lo up
    ip link add br0 type bridge
    ip address add "$1" dev br0
    ip link set br0 up

    # A name without characters that overlay's mount options would misread.
    mkdir -p "$3"
    mount --bind "$2" "$3"

    # nspawn keeps notes about its machines here; these are not the host's.
    mkdir -p /run/systemd
    mount -t tmpfs -o mode=0755 tmpfs /run/systemd
}

main "$@"
