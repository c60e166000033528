# What `observe` and `apply` share: asking tailscaled what the node serves.

# What is served, as JSON. An answer that is not whole must not pass for one. tailscale's warnings go to stderr and are
# no failure.
served() {
    timeout "$1" tailscale serve status --json || fail $? 'tailscale serve status'
}

# What tells one state of the routes from another.
mark() {
    printf '%s' "$1" | cksum
}

# Prints one JSON object: what this node serves, and what the tailnet lets it serve.
look() {
    serve=$(served "$1") || exit
    node=$(timeout "$1" tailscale status --json --peers=false) || fail $? 'tailscale status'
    printf '{"serve":%s,"node":%s,"mark":"%s"}\n' "$serve" "$node" "$(mark "$serve")"
}

# Ends with 10 where there is no tailscale and with 11 where tailscaled does not answer.
fail() {
    case $1 in
        124) echo "$2: no answer in time" >&2 ;;
        127) exit 10 ;;
        *) echo "$2: code $1" >&2 ;;
    esac
    exit 11
}
