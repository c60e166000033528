#!/bin/sh
# Runs debootstrap where no device can be made: in a user namespace they are the machine's own, mounted.
# usage: debootstrap.sh ROOT ARGUMENT…, in a mount namespace of its own
set -eu

main() {
    root=$1
    shift
    mkdir -p "$root/dev"
    mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
    for device in null zero full random urandom tty console ptmx; do
        : >"$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    # It would try to make one, and give up, if it did not take this for a container.
    container=lxc exec debootstrap "$@"
}

main "$@"
