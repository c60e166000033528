# Asks URL with the token that KEY names, of ENV-FILE or of what COMMAND prints, and prints the status. The token stays on this
# machine, and goes to curl by its stdin. Sent together with env.sh.
# usage: ops ENV-FILE KEY URL APP USER BUILD-PATH COMMAND
# exits 3 if there is no such token, 4 if the command failed, and says how

# shellcheck disable=SC2034,SC2154 # others read and set them
main() {
    env=$1 app=$4 user=$5 build_path=$6 env_command=$7
    if [ ! -f "$env" ] || [ -L "$env" ]; then exit 3; fi
    ask_env_command
    if [ -n "$env_failed" ]; then
        printf '%s\n' "$env_failed"
        exit 4
    fi
    token=$(env_text | sed -n "s/^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}$2[[:space:]]*=[[:space:]]*//p" |
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
