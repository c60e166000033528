# shellcheck shell=sh
# Restarts units, and sees that each runs in one new process for a while. A deploy that is under way is not disturbed.
# usage: restart STATE STABLE-SECONDS LIMIT UNIT…
# Out: lines about what is waited for, then "up|down<TAB>UNIT<TAB>WORDS"; exits 1 if one is down, 30 with the holder if busy
main() {
	state=$1 stable=$2 limit=$3
	shift 3
	if [ -f "$state/lock" ] && ! flock --shared --nonblock "$state/lock" true; then
		head -n 1 "$state/lock"
		return 30
	fi
	work=$(mktemp -d) || return 1
	trap 'rm -rf "$work"' EXIT
	for unit in "$@"; do
		property "$unit" InvocationID >"$work/$unit.before"
	done
	systemctl restart -- "$@" 2>"$work/said"
	end=$(($(date +%s) + limit + stable))
	while :; do
		open=''
		: >"$work/result"
		for unit in "$@"; do
			judge "$unit" || open="$open $unit"
		done
		[ -n "$open" ] || break
		if [ "$(date +%s)" -ge "$end" ]; then
			break
		fi
		echo "== waiting for$open"
		sleep 1
	done
	cat "$work/result"
	if [ -n "$open" ]; then
		cat "$work/said" >&2
		for unit in $open; do
			journalctl --no-pager --output=short-iso -n 20 -u "$unit" >&2
		done
		return 1
	fi
}

property() {
	systemctl show --property="$2" --value -- "$1"
}

# Does it run, in the process that it was started with, for long enough?
judge() {
	active=$(property "$1" ActiveState)
	invocation=$(property "$1" InvocationID)
	pid=$(property "$1" MainPID)
	since=$(property "$1" ExecMainStartTimestampMonotonic)
	restarts=$(property "$1" NRestarts)
	age=$(awk -v since="$since" '{ printf "%d", $1 - since / 1000000 }' /proc/uptime)
	if [ "$active" = active ] && [ "$invocation" != "$(cat "$work/$1.before")" ] && [ "$pid" -gt 0 ] && [ "$age" -ge "$stable" ]; then
		printf 'up\t%s\tprocess %s for %s s\n' "$1" "$pid" "$age" >>"$work/result"
		return 0
	fi
	printf 'down\t%s\t%s, process %s, restarted %s times by itself\n' "$1" "$active" "$pid" "$restarts" >>"$work/result"
	return 1
}
main "$@"
