# Changes serve routes one by one and stops at the first that fails. What tailscale said is on stdout either way: it
# may hold the address where serve is enabled.
# usage: apply SECONDS {set SCHEME PORT TARGET | remove SCHEME PORT - | clear KIND PORT - | reset - - -}…
# exits 1 if a command failed, 2 if one did not come back in time (it waits for ever where serve is not enabled)

main() {
    seconds=$1
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            set) timeout "$seconds" tailscale serve --bg "--$2=$3" "$4" </dev/null 2>&1 ;;
            remove) timeout "$seconds" tailscale serve "--$2=$3" --set-path=/ off </dev/null 2>&1 ;;
            clear) timeout "$seconds" tailscale serve "--$2=$3" off </dev/null 2>&1 ;;
            reset) timeout "$seconds" tailscale serve reset </dev/null 2>&1 ;;
            *) false ;;
        esac
        code=$?
        if [ "$code" -ne 0 ]; then
            echo "tailscale serve: $1 $2 port $3 ended with code $code" >&2
            [ "$code" -ne 124 ] || exit 2
            exit 1
        fi
        shift 4
    done
}

main "$@"
