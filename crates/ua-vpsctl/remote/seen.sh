# shellcheck shell=sh
# How units are, what they answer and run, and who deploys. Sent together with ledger.sh and the scripts that ask:
# seen STATE HEALTH [?]UNIT…
#   HEALTH  NAME<TAB>URL, a line each
# A unit with `?` before it is left out where there is none.
# Out: unit<TAB>ID LOAD ACTIVE SUB RESTARTS SECONDS MEMORY PID START, runs<TAB>UNIT COMMITS, served<TAB>RELEASE,
# release<TAB>ID SWITCHED RUNNING of each that was proved (when its switch began, and when what runs was noted),
# systemd<TAB>VERSION of one that tells no exact starts, open<TAB>ID of each after it that was neither proved nor taken back, pushed<TAB>LINE of the ledger that is not settled,
# busy<TAB>HOLDER, locked<TAB>SINCE, health<TAB>NAME STATUS CODE (curl's; the status is 000 without an answer)
seen() {
	state=$1 health=$2 optional=' '
	shift 2
	for unit in "$@"; do
		shift
		case $unit in
			'?'*)
				unit=${unit#?}
				optional="$optional$unit "
				;;
		esac
		set -- "$@" "$unit"
	done
	# The time of the start is compared with those of files, so it is a date as well. Before 248 systemd tells it to the
	# second and in local time, whatever it is asked (247), or knows no such question.
	version=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
	if [ "${version:-248}" -lt 248 ]; then
		printf 'systemd\t%s\n' "$version"
	else
		set -- --timestamp=us+utc "$@"
	fi
	systemctl show \
		--property=Id,LoadState,ActiveState,SubState,NRestarts,StateChangeTimestampMonotonic,MemoryCurrent,MainPID,ExecMainStartTimestamp "$@" |
		awk -F = -v up="$(cut -d ' ' -f 1 /proc/uptime)" -v optional="$optional" '
			function row() {
				if (!("Id" in value)) return
				none = value["LoadState"] == "not-found" && value["ActiveState"] == "inactive"
				if (none && index(optional, " " value["Id"] " ")) {
					split("", value)
					return
				}
				age = int(up - value["StateChangeTimestampMonotonic"] / 1000000)
				print "unit", value["Id"], value["LoadState"], value["ActiveState"], value["SubState"], value["NRestarts"] + 0, age, \
					value["MemoryCurrent"], value["MainPID"] + 0, value["ExecMainStartTimestamp"]
				split("", value)
			}
			BEGIN { OFS = "\t" }
			NF == 0 { row(); next }
			{ value[$1] = $2 }
			END { row() }
		'
	releases
	open_pushes | sed 's/^/pushed\t/'
	if [ -f "$state/lock" ] && ! flock --shared --nonblock "$state/lock" true; then
		printf 'busy\t%s\nlocked\t%s\n' "$(head -n 1 "$state/lock")" "$(changed "$state/lock")"
	fi
	ask_health
}

# All at once, as a deploy asks. A unit that hangs is `active`, and does not answer.
ask_health() {
	printf '%s' "$health" | {
		while IFS="$(printf '\t')" read -r name url; do
			{
				status=$(curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}' "$url")
				printf 'health\t%s\t%s\t%s\n' "$name" "$status" "$?"
			} &
		done
		wait
	}
}

releases() {
	served=''
	for dir in "$state"/releases/*; do
		[ -e "$dir/served" ] || continue
		served=$dir
		printf 'release\t%s\t%s\t%s\n' "${dir##*/}" "$(changed "$dir/switched")" "$(changed "$dir/running")"
	done
	if [ -n "$served" ]; then
		printf 'served\t%s\n' "${served##*/}"
		[ ! -f "$served/running" ] || sed 's/^/runs\t/' "$served/running"
	fi
	later=''
	[ -n "$served" ] || later=yes
	for dir in "$state"/releases/*; do
		if [ -n "$later" ] && [ -e "$dir/switched" ]; then printf 'open\t%s\n' "${dir##*/}"; fi
		[ "$dir" != "$served" ] || later=yes
	done
}

# When FILE was written, in seconds of the epoch.
changed() {
	stat -c %.6Y "$1" 2>/dev/null
}
