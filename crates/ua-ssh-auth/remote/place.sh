# Makes a private directory for a canary's files and says where.
# usage: place

main() {
    mktemp -d /tmp/ua-canary.XXXXXXXX
}

main "$@"
