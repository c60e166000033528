# shellcheck shell=sh disable=SC2154
# Restarts units, and sees that each runs in one new process for a while. Sent together with unit_log.sh and the scripts that
# do so, which set $work, a directory of the run, and see that no deploy is disturbed.

# restart_units STABLE-SECONDS LIMIT [?]UNIT…; a unit with `?` before it is left alone where there is none, or it is stopped.
# Out: lines about what is waited for, then "up|down|absent|stopped|none<TAB>UNIT<TAB>WORDS"; 1 if one is down or absent
restart_units() {
	stable=$1 limit=$2
	shift 2
	: >"$work/left"
	for unit in "$@"; do
		shift
		case $unit in
			'?'*)
				unit=${unit#?}
				if left_alone "$unit"; then continue; fi
				;;
		esac
		property "$unit" InvocationID >"$work/$unit.before"
		set -- "$@" "$unit"
	done
	open='' && : >"$work/result" && : >"$work/said"
	[ "$#" -eq 0 ] || restart_and_wait "$@"
	cat "$work/left" "$work/result"
	if [ -n "$open" ]; then
		cat "$work/said" >&2
		for unit in $open; do
			unit_words "$unit" 20 short-iso >&2
		done
		return 1
	fi
}

# Is an optional unit not there, or stopped on purpose?
left_alone() {
	[ "$(property "$1" ActiveState)" = inactive ] || return 1
	load=$(property "$1" LoadState)
	printf '%s\t%s\tinactive, %s\n' "$([ "$load" = not-found ] && echo none || echo stopped)" "$1" "$load" >>"$work/left"
}

restart_and_wait() {
	echo "== restarting $*"
	systemctl restart -- "$@" 2>"$work/said"
	end=$(($(date +%s) + limit + stable))
	while :; do
		open='' waiting=''
		: >"$work/result"
		for unit in "$@"; do
			if judge "$unit"; then continue; fi
			open="$open $unit"
			over "$unit" || waiting="$waiting $unit"
		done
		[ -n "$waiting" ] || break
		if [ "$(date +%s)" -ge "$end" ]; then
			break
		fi
		echo "== waiting for$waiting"
		sleep 1
	done
}

property() {
	systemctl show --property="$2" --value -- "$1"
}

# Has systemd nothing more to do about it? A start is a job until it succeeds or fails, and one that is tried again is
# `activating`.
over() {
	systemctl show --property=LoadState,ActiveState,Job -- "$1" | awk -F = '
		{ is[$1] = $2 }
		END {
			rests = is["ActiveState"] ~ /^(failed|inactive)$/ || is["LoadState"] ~ /^(not-found|bad-setting|error|masked)$/
			exit !rests || is["Job"]
		}
	'
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
	if [ "$(property "$1" LoadState)" = not-found ]; then
		printf 'absent\t%s\t\n' "$1" >>"$work/result"
		return 1
	fi
	printf 'down\t%s\t%s, process %s, restarted %s times by itself\n' "$1" "$active" "$pid" "$restarts" >>"$work/result"
	return 1
}
