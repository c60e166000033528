#!/bin/sh
# Gives a node its disk: a file system in memory whose size can be changed, over read-only layers.
# usage: disk.sh NODE_DIRECTORY SIZE LAYER[:LAYER…]
set -eu

main() {
    mkdir -p "$1/disk" "$1/root"
    # For a disk that takes the place of this one.
    printf '%s\n' "$3" >"$1/layers"
    mount -t tmpfs -o "size=$2,mode=0755" tmpfs "$1/disk"
    mkdir "$1/disk/upper" "$1/disk/work"
    mount -t overlay overlay -o "lowerdir=$3,upperdir=$1/disk/upper,workdir=$1/disk/work" "$1/root"
}

main "$@"
