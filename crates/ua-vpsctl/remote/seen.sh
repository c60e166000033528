# shellcheck shell=sh
# How units are, what they run, and who deploys. Sent together with the scripts that ask: seen STATE [?]UNIT…
# A unit with `?` before it is left out where there is none.
# Out: unit<TAB>ID LOAD ACTIVE SUB RESTARTS SECONDS MEMORY PID, runs<TAB>UNIT COMMITS, served<TAB>RELEASE, busy<TAB>HOLDER
seen() {
	state=$1 optional=' '
	shift
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
	systemctl show --property=Id,LoadState,ActiveState,SubState,NRestarts,StateChangeTimestampMonotonic,MemoryCurrent,MainPID "$@" |
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
					value["MemoryCurrent"], value["MainPID"] + 0
				split("", value)
			}
			BEGIN { OFS = "\t" }
			NF == 0 { row(); next }
			{ value[$1] = $2 }
			END { row() }
		'
	served=''
	for dir in "$state"/releases/*; do
		[ ! -e "$dir/served" ] || served=$dir
	done
	if [ -n "$served" ]; then
		printf 'served\t%s\n' "${served##*/}"
		[ ! -f "$served/running" ] || sed 's/^/runs\t/' "$served/running"
	fi
	if [ -f "$state/lock" ] && ! flock --shared --nonblock "$state/lock" true; then
		printf 'busy\t%s\n' "$(head -n 1 "$state/lock")"
	fi
}
