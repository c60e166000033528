# Ends everything that is being done about a release, and sees that it let the lock go. What it was in the middle of is
# recovered as after any other end: before the switch nothing was changed, after it the old release is put back.
# usage: unlock STATE ID

main() {
    for verb in forward restore confirm; do
        systemctl stop "ua-deploy-$verb-$2.service" 2>/dev/null || :
    done
    ! grep -qxF -- "$2" "$1/pending" 2>/dev/null || systemctl stop ua-deploy-recover.service 2>/dev/null || :
    if ! flock --shared --wait 5 "$1/lock" true; then
        echo "the lock is still held: $(head -n 1 "$1/lock")" >&2
        exit 1
    fi
}

main "$@"
