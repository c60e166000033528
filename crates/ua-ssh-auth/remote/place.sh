# Makes a private directory for a canary's files and says where. What canaries left that were killed long ago goes.
# usage: place

main() {
    find /tmp -maxdepth 1 -type d -name 'ua-canary.????????' -user "$(id -u)" -mmin +60 -exec rm -rf {} +
    mktemp -d /tmp/ua-canary.XXXXXXXX
}

main "$@"
