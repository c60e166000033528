# Asks addresses of the VPS itself and prints the status of each, 000 where nobody answers. Changes nothing.
# usage: loopback SECONDS URL…

main() {
    seconds=$1
    shift
    if ! command -v curl >/dev/null; then
        echo "there is no curl command on the VPS" >&2
        exit 1
    fi
    for url in "$@"; do
        # Its exit code says the same as 000.
        curl --silent --max-time "$seconds" --output /dev/null --write-out '%{http_code}\n' -- "$url" || :
    done
}

main "$@"
