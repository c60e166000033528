# shellcheck shell=sh
# Restarts units. A deploy that is under way is not disturbed. Sent together with unit_log.sh and restarting.sh.
# usage: restart STATE STABLE-SECONDS LIMIT [?]UNIT…
# Out: as restart_units says; exits 1 if one is down, 30 with the holder if busy
main() {
	state=$1
	shift
	if [ -f "$state/lock" ] && ! flock --shared --nonblock "$state/lock" true; then
		head -n 1 "$state/lock"
		return 30
	fi
	work=$(mktemp -d) || return 1
	trap 'rm -rf "$work"' EXIT
	# Whoever waits for this may be gone.
	trap 'exit 1' HUP INT TERM PIPE
	restart_units "$@"
}
main "$@"
