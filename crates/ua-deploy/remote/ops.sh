# Asks URL with the token that KEY of ENV-FILE holds, and prints the status. The token stays on this machine, and goes to
# curl by its stdin.
# usage: ops ENV-FILE KEY URL
# exits 3 if there is no such token

main() {
    if [ ! -f "$1" ] || [ -L "$1" ]; then exit 3; fi
    token=$(sed -n "s/^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}$2[[:space:]]*=[[:space:]]*//p" "$1" |
        tail -n 1 | tr -d '\r')
    case $token in
        \"*\") token=${token#?} token=${token%?} ;;
        \'*\') token=${token#?} token=${token%?} ;;
    esac
    [ -n "$token" ] || exit 3
    printf 'x-ua-ops-token: %s\n' "$token" |
        curl --silent --max-time 10 --header @- --output /dev/null --write-out '%{http_code}\n' "$3"
}

main "$@"
