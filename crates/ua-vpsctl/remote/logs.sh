# shellcheck shell=sh disable=SC2154
# What units wrote, into the journal and into files. Sent together with unit_log.sh.
# usage: logs FOLLOW LINES SINCE PATTERN UNIT…; empty words mean nothing is asked for
# Out, a line each. Of each source there is up to one line more than LINES, so that it is known whether there are more:
#   zone<TAB>OFFSET                         of the local time, in which most programs write
#   file<TAB>N<TAB>UNIT<TAB>TIME<TAB>PATH   a file of UNIT, and when it was last written to; it is not read where that is
#                                           `none` or `link`
#   unknown<TAB>UNIT                        which file it writes to, if any, cannot be told
#   untimed<TAB>N                           no line of this file has a time, so SINCE cannot be applied
#   {…}                                     an entry of the journal
#   N<TAB>LINE                              a line of this file
#   end                                     of what was there when it was asked; if followed, what comes is after it
main() {
	follow=$1 lines=$2 since=$3 pattern=$4
	shift 4
	most=$((lines + 1)) tab=$(printf '\t')
	work=$(mktemp -d) || return 1
	journal=''
	trap 'rm -rf "$work"; [ -z "$journal" ] || kill "$journal" 2>/dev/null' EXIT
	# Whoever waits for this may be gone.
	trap 'exit 1' HUP INT TERM PIPE
	printf 'zone\t%s\n' "$(date +%z)"
	find_files "$@"
	for unit in "$@"; do
		shift
		set -- "$@" "--unit=$unit"
	done
	[ -z "$pattern" ] || set -- "$@" "--grep=$pattern"
	if [ "$follow" = yes ]; then
		# What comes while we read what is there is told twice rather than not at all.
		from=$(journalctl --no-pager --quiet --lines=1 --output=cat --show-cursor | sed -n 's/^-- cursor: /--after-cursor=/p')
		from=${from:---since=@$(date +%s)}
	fi
	from_journal "--lines=$most" ${since:+"--since=$since"} "$@" || return
	from_files || return
	echo end
	[ "$follow" = yes ] || return 0
	self=$$
	while IFS=$tab read -r n inode size file; do
		follow_file &
	done <"$work/files"
	journalctl --no-pager --quiet --all --output=json --output-fields="$fields" --follow --no-tail "$from" "$@" &
	journal=$!
	# Whoever reads may be gone while nothing is written: then our parent is, too.
	parent=$(parent_of $$)
	while kill -0 "$journal" 2>/dev/null; do
		[ "$(parent_of $$)" = "$parent" ] || return
		sleep 1
	done
	wait "$journal"
}

fields=MESSAGE,UNIT,OBJECT_SYSTEMD_UNIT,COREDUMP_UNIT,_SYSTEMD_UNIT,_HOSTNAME,SYSLOG_IDENTIFIER,_COMM,SYSLOG_PID,_PID

from_journal() {
	exec 3>&1
	complaint=$(journalctl --no-pager --quiet --all --output=json --output-fields="$fields" "$@" 2>&1 >&3)
	code=$?
	[ -z "$complaint" ] || printf '%s\n' "$complaint" >&2
	# Nothing that matches is an answer; something that is not understood has the same code.
	[ "$code" -ne 1 ] || [ -z "$pattern" ] || [ -n "$complaint" ] || code=0
	return "$code"
}

# Tells of the files of units, each once, and notes N INODE SIZE PATH of each.
find_files() {
	n=0
	: >"$work/files"
	for unit in "$@"; do
		unit_log_files "$unit" >"$work/of" || printf 'unknown\t%s\n' "$unit"
		while IFS= read -r file; do
			if cut -f 4 "$work/files" | grep -qxF -e "$file"; then continue; fi
			n=$((n + 1)) inode=- size=0
			facts=$(reading "$file" stat -L -c '%d:%i %s %Y' /dev/stdin)
			case $? in
				0)
					inode=${facts%% *} time=${facts##* } size=${facts#* }
					size=${size% *}
					;;
				3) time=none ;;
				*) time="link" ;;
			esac
			printf 'file\t%s\t%s\t%s\t%s\n' "$n" "$unit" "$time" "$file"
			printf '%s\t%s\t%s\t%s\n' "$n" "$inode" "$size" "$file" >>"$work/files"
		done <"$work/of"
	done
}

# reading PATH COMMAND…
reading() {
	sh -c "$plain_file" "$@"
}

# What the files hold by now.
from_files() {
	if [ -n "$since" ] && [ -s "$work/files" ]; then
		# In the words of journalctl, which took it.
		at=$(systemd-analyze timestamp -- "$since" | sed -n 's/.*UNIX seconds: @//p')
		if [ -z "$at" ]; then
			echo "systemd-analyze of the VPS does not tell which time is meant by '$since'" >&2
			return 1
		fi
		after=$(date -d "@$at" '+%F %T.%6N') after_utc=$(date -u -d "@$at" '+%F %T.%6N')
	fi
	while IFS=$tab read -r n inode size file; do
		[ "$inode" != - ] || continue
		filter="cat"
		if [ -n "$since" ]; then
			filter="later"
			if ! reading "$file" grep -a -q -e "$timed"; then
				filter="cat"
				printf 'untimed\t%s\n' "$n"
			fi
		fi
		if [ "$follow$since$pattern" = no ]; then
			# From its end, however large it is.
			reading "$file" tail -n "$most"
		else
			reading "$file" head -c "$size" | "$filter" | matching | tail -n "$most"
		fi | sed "s/^/$n\t/"
	done <"$work/files"
	[ ! -e "$work/failed" ]
}

# A line that begins with a date and a time. The one that follows is of the same time if it has none.
timed='^[[]\{0,1\}[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][ T][0-9][0-9]:[0-9][0-9]:[0-9][0-9]'

# From the first line on that is of $after or later.
later() {
	awk -v after="$after" -v utc="$after_utc" '
		!on && /^[[]?[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][ T][0-9][0-9]:[0-9][0-9]:[0-9][0-9]/ {
			rest = $0
			sub(/^[[]/, "", rest)
			time = substr(rest, 1, 10) " " substr(rest, 12, 8)
			rest = substr(rest, 20)
			if (match(rest, /^[.,][0-9]+/)) {
				time = time "." substr(rest, 2, RLENGTH - 1)
				rest = substr(rest, RLENGTH + 1)
			}
			on = time >= (rest ~ /^(Z|[+]00:?00)/ ? utc : after)
		}
		on
	'
}

# As journalctl does: a pattern without capitals matches both.
matching() {
	case $pattern in
		'') cat && return ;;
		*[[:upper:]]*) set -- "$@" ;;
		*) set -- "$@" --ignore-case ;;
	esac
	LC_ALL=C.UTF-8 grep --text --perl-regexp "$@" -e "$pattern"
	[ $? -le 1 ] || : >"$work/failed"
}

# Goes on after what was told of the file, and with the one that takes its place when it is rotated.
follow_file() {
	from=$((size + 1))
	while [ -d "/proc/$self" ]; do
		if is=$(reading "$file" stat -L -c '%d:%i' /dev/stdin); then
			[ "$is" = "$inode" ] || from=1
			inode=$is
			while [ -d "/proc/$self" ] && is=$(stat -c '%d:%i' -- "$file" 2>/dev/null || echo "$inode") && [ "$is" = "$inode" ]; do
				sleep 1
			done &
			reading "$file" tail -c "+$from" -f --pid=$! 2>/dev/null | matching --line-buffered | sed -u "s/^/$n\t/"
			inode=-
		fi
		sleep 1
	done
}

parent_of() {
	sed 's/.*) //' "/proc/$1/stat" | cut -d ' ' -f 2
}
main "$@"
