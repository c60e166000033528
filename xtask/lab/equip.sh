#!/bin/sh
# Equips a node that is off: a disk in a file of the host, and directories of the host.
# usage: equip.sh NODE_DIRECTORY IMAGE|- USER [cache|tree NAME DIRECTORY]…
set -eu

# Moves what the node has written so far to the new disk.
replace_disk() {
    umount "$node/root"
    mkdir "$node/new-disk"
    mount -o loop,discard=async,compress-force=zstd:1 "$1" "$node/new-disk"
    # Without a name the file takes no space once nothing mounts it, however the lab ends.
    rm "$1"
    cp -a "$node/disk/upper" "$node/new-disk/upper"
    mkdir "$node/new-disk/work"
    umount "$node/disk"
    mount --move "$node/new-disk" "$node/disk"
    rmdir "$node/new-disk"
    read -r layers <"$node/layers"
    mount -t overlay overlay -o "lowerdir=$layers,upperdir=$node/disk/upper,workdir=$node/disk/work" "$node/root"
}

# Shows a directory of the host read-only, at a path that overlay's mount options cannot misread.
show() {
    mkdir -p "$node/host/$1"
    mount --bind "$2" "$node/host/$1"
    mount -o remount,bind,ro "$node/host/$1"
}

# Lays a cache over the host's: the user writes to the node's disk, and the host's stays as it is.
lay_cache() {
    mkdir -p "$node/disk/$1/upper" "$node/disk/$1/work" "$node/cache/$1"
    lower=$node/host/$1
    mount -t overlay overlay -o "lowerdir=$lower,upperdir=$node/disk/$1/upper,workdir=$node/disk/$1/work" \
        "$node/cache/$1"
    # Caches replace files by renaming, and open empty ones as locks. A change of owner copies the whole file.
    find "$node/cache/$1" \( -type d -o -type f -empty \) -exec chown "$owner" {} +
}

main() {
    node=$1 image=$2 user=$3
    shift 3
    owner=$(awk -F : -v user="$user" '$1 == user { print $3 ":" $4 }' "$node/root/etc/passwd")
    [ -n "$owner" ] || {
        echo "equip: no user $user on the node" >&2
        exit 1
    }
    [ "$image" = - ] || replace_disk "$image"
    while [ $# -gt 0 ]; do
        show "$2" "$3"
        [ "$1" = tree ] || lay_cache "$2"
        shift 3
    done
    home=$node/root/home/$user
    # Mount points below it would belong to root.
    install -d -o "${owner%:*}" -g "${owner#*:}" "$home/.cache" "$home/.cache/uv" "$home/.npm"
}

main "$@"
