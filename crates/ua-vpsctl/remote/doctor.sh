# shellcheck shell=sh disable=SC2034,SC2154
# Looks at all that a healthy VPS has. Changes nothing; sent together with seen.sh, ledger.sh, env.sh and staging's look.sh.
# usage: doctor STATE APP USER ENV-FILE SHAPES WORDS WATCHDOG-TIMER SECRETS BUILD-PATH ENV-COMMAND HEALTH TIMERS [?]UNIT…
#   SHAPES, WORDS  as env_lines takes them
#   SECRETS        other files of APP with secrets, a line each
#   HEALTH         as seen takes it
#   TIMERS         patterns of the app's timers, with blanks between
# Out: WHAT<TAB>FIELDS…, a line each; no value of `.env` leaves the VPS
main() {
	state=$1 app=$2 user=$3 env=$2/$4 shapes=$5 words=$6 watchdog=$7 secrets=$8
	build_path=$9 env_command=${10} health=${11} timers=${12}
	shift 12
	tab=$(printf '\t')
	fact began "$(date +%s.%N)"
	seen "$state" "$health" "$@"
	timer_facts
	listeners
	env_facts
	secret_facts
	rooms
	awk '
		{ kib[$1] = $2 }
		END { print "memory\t" kib["MemTotal:"] "\t" kib["MemAvailable:"] "\t" kib["SwapTotal:"] + 0 "\t" kib["SwapFree:"] + 0 }
	' /proc/meminfo
	[ -z "$watchdog" ] || watchdog_facts
	[ ! -f "$state/history.jsonl" ] || tail -n 500 "$state/history.jsonl" | sed "s/^/history$tab/"
	serve=$(look 5 2>/dev/null) && fact serve "$(printf '%s' "$serve" | tr -d '\n')"
	certificates
	fact ended "$(date +%s.%N)"
}

fact() {
	printf '%s\t%s\n' "$1" "$2"
}

env_facts() {
	if [ -L "$env" ] || [ ! -f "$env" ]; then
		fact env "$([ -e "$env" ] && echo odd)"
		return
	fi
	fact env "$(stat -c "%U:%G$tab%a" "$env")$tab$(runuser -u "$user" -- test -r "$env" 2>/dev/null && echo readable)"
	ask_env_command
	[ -z "$env_failed" ] || fact env_failed "$env_failed"
	env_lines '' "$shapes" "$words"
}

# FILE OWNER MODE of those that are there, or FILE odd where it is none, or lies behind a link.
secret_facts() {
	real=$(readlink -e -- "$app") || return 0
	printf '%s' "$secrets" | while IFS= read -r file; do
		if [ "$(readlink -e -- "$app/$file")" = "$real/$file" ] && [ -f "$app/$file" ]; then
			fact secret "$file$tab$(stat -c "%U:%G$tab%a" -- "$app/$file")"
		elif [ -e "$app/$file" ] || [ -L "$app/$file" ]; then
			fact secret "$file${tab}odd"
		fi
	done
}

# DIRECTORY DEVICE KIB FREE, and how many of a hundred inodes are taken, where they are counted
rooms() {
	for dir in "$app" "$state"; do
		[ -d "$dir" ] || continue
		fact room "$dir$tab$(df -Pk "$dir" | awk 'NR == 2 { print $1 "\t" $2 "\t" $4 }')$tab$(df -Pi "$dir" | awk 'NR == 2 { print $5 + 0 }')"
	done
}

# ID ACTIVE SUB {next|none} {repeats|dates|once} SERVICE of each timer: does it elapse again, and what is it meant to do? One whose
# service runs is `running`, and knows its next time only afterwards.
timer_facts() {
	set -f
	# shellcheck disable=SC2086
	systemctl show --property=Id,ActiveState,SubState,NextElapseUSecRealtime,NextElapseUSecMonotonic,TimersCalendar,TimersMonotonic,Unit $timers |
		awk -F = '
			function row() {
				if (value["Id"] != "")
					print "timer", value["Id"], value["ActiveState"], value["SubState"], next_one ? "next" : "none", \
						kind ? kind : "once", value["Unit"]
				split("", value)
				next_one = kind = ""
			}
			BEGIN { OFS = "\t" }
			NF == 0 { row(); next }
			{ value[$1] = $2 }
			/^NextElapse/ && $2 !~ /^(|0|n\/a|infinity)$/ { next_one = 1 }
			/^TimersCalendar=/ && !kind { kind = "dates" }
			/OnUnit(Ina|A)ctiveUSec=/ { kind = "repeats" }
			END { row() }
		'
	set +f
}

# PORT PROGRAM of whatever listens on every address of this machine.
listeners() {
	sockets=$(ss -Hltnp) || return
	fact listeners "$(printf '%s\n' "$sockets" | awk '
		$4 ~ /^(0\.0\.0\.0|\*|\[::\]):[0-9]+$/ {
			port = $4
			sub(/.*:/, "", port)
			program = match($0, /users:\(\("[^"]*"/) ? substr($0, RSTART + 9, RLENGTH - 10) : "?"
			if (!seen[port, program]++) printf "%s%s %s", n++ ? "\t" : "", port, program
		}
	')"
}

watchdog_facts() {
	fact watchdog "$(systemctl is-enabled "$watchdog" 2>/dev/null)$tab$(systemctl is-active "$watchdog" 2>/dev/null)"
	service=${watchdog%.timer}.service
	case $(systemctl show --property=User --value "$service") in
		'' | root | 0) ;;
		*) return 0 ;;
	esac
	command=$(systemctl show --property=ExecStart --value "$service")
	fact command "$(printf '%s' "$command" | tr '\n' ' ' | sed -n 's/.* argv\[\]=\(.*\) ; ignore_errors=.*/\1/p')"
	# What root runs of the app's own files, and who else can change it.
	printf '%s' "$command" | tr ' ' '\n' | sed 's/^[^/]*=//' | sort -u |
		while IFS= read -r path; do
			case $path in
				"$app"/*) [ ! -e "$path" ] || fact rootruns "$path$tab$(changer "$path")" ;;
			esac
		done
	# What it takes the environment of that from, and who else can change it: a variable such as LD_PRELOAD makes it run
	# anything. They may be patterns, and need not be there: who can make one decides as well.
	systemctl show --property=EnvironmentFiles --value "$service" | sed -n 's/ (ignore_errors=[a-z]*)$//p' | {
		IFS=''
		while read -r pattern; do
			for path in $pattern; do
				fact rootreads "$path$tab$(changer "$path")"
			done
		done
	}
}

# Who but root can change PATH, or put another in its place: by itself, or by a directory above it, up to the app's or the
# root; as it is written, and as links lead.
changer() {
	for at in "$1" "$(readlink -m -- "$1")"; do
		while [ -n "$at" ]; do
			# What is not there can be made by whoever can change the directory; what cannot be looked at is no pass.
			who=''
			if [ -e "$at" ]; then
				who=$(find -H "$at" -maxdepth 0 \( ! -user root -printf %u -o -perm /002 -printf everybody -o \
					-perm /020 ! -group root -printf 'group %g' \)) || who=somebody
			fi
			[ -z "$who" ] || break 2
			[ "$at" != "$app" ] || break
			at=${at%/*}
		done
	done
	printf '%s' "$who"
}

# NAME and until when, in seconds of the epoch.
certificates() {
	for file in /var/lib/tailscale/certs/*.crt; do
		[ -f "$file" ] || continue
		until=$(openssl x509 -noout -enddate -in "$file" 2>/dev/null) || continue
		name=${file##*/}
		fact certificate "${name%.crt}$tab$(date -d "${until#*=}" +%s)"
	done
}

main "$@"
