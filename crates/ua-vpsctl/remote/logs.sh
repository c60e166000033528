# shellcheck shell=sh
# The journal of units. usage: logs FOLLOW LINES SINCE PATTERN UNIT…; empty words mean nothing is asked for
main() {
	follow=$1 lines=$2 since=$3 pattern=$4
	shift 4
	for unit in "$@"; do
		shift
		set -- "$@" "--unit=$unit"
	done
	[ -z "$lines" ] || set -- "$@" "--lines=$lines"
	[ -z "$since" ] || set -- "$@" "--since=$since"
	[ -z "$pattern" ] || set -- "$@" "--grep=$pattern"
	if [ "$follow" != yes ]; then
		exec 3>&1
		complaint=$(journalctl --no-pager --quiet --output=short-iso "$@" 2>&1 >&3)
		code=$?
		[ -z "$complaint" ] || printf '%s\n' "$complaint" >&2
		# Nothing that matches is an answer; something that is not understood has the same code.
		[ "$code" -ne 1 ] || [ -z "$pattern" ] || [ -n "$complaint" ] || code=0
		return "$code"
	fi
	journalctl --no-pager --quiet --output=short-iso --follow "$@" &
	journal=$!
	# Whoever reads may be gone while nothing is written: then our parent is, too.
	parent=$(parent_of $$)
	while kill -0 "$journal" 2>/dev/null; do
		if [ "$(parent_of $$)" != "$parent" ]; then
			kill "$journal"
			break
		fi
		sleep 1
	done
	wait "$journal"
}

parent_of() {
	sed 's/.*) //' "/proc/$1/stat" | cut -d ' ' -f 2
}
main "$@"
