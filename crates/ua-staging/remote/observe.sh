# Prints one JSON object: what this node serves, and what the tailnet lets it serve. Changes nothing.
# usage: observe SECONDS

main() {
    # An answer that is not whole must not pass for one, so each is taken before anything is printed. tailscale's
    # warnings go to stderr and are no failure.
    serve=$(timeout "$1" tailscale serve status --json) || fail $? 'tailscale serve status'
    node=$(timeout "$1" tailscale status --json --peers=false) || fail $? 'tailscale status'
    printf '{"serve":%s,"node":%s}\n' "$serve" "$node"
}

fail() {
    case $1 in
        124) echo "$2: no answer in time" >&2 ;;
        127) echo "there is no tailscale command on the VPS" >&2 ;;
        *) echo "$2: code $1" >&2 ;;
    esac
    exit 1
}

main "$@"
