# Makes one change of the serve routes, if they still are what they were when it was decided on, and says what is served
# then. What tailscale says about the change goes to stderr: it may hold the address where serve is enabled.
# usage: apply SECONDS MARK {set KIND PORT TARGET | remove KIND PORT - | clear KIND PORT - | reset - - -}
# exits 1 if the command failed, 2 if it did not come back in time (it waits for ever where serve is not enabled), 3 if
# the routes are others by now, in which case nothing was changed; 10 and 11 as `fail` does

main() {
    seconds=$1 seen=$2
    shift 2
    serve=$(served "$seconds") || exit
    # What comes between this look and the change itself is refused by tailscaled, which knows the state by its etag.
    [ "$(mark "$serve")" = "$seen" ] || exit 3
    change "$@" </dev/null >&2
    code=$?
    if [ "$code" -ne 0 ]; then
        echo "tailscale serve: $1 $2 port $3 ended with code $code" >&2
        [ "$code" -ne 124 ] || exit 2
        exit 1
    fi
    look "$seconds"
}

change() {
    case $1 in
        set) timeout "$seconds" tailscale serve --bg "--$2=$3" "$4" ;;
        remove) timeout "$seconds" tailscale serve "--$2=$3" --set-path=/ off ;;
        clear) timeout "$seconds" tailscale serve "--$2=$3" off ;;
        reset) timeout "$seconds" tailscale serve reset ;;
        *) false ;;
    esac
}

main "$@"
