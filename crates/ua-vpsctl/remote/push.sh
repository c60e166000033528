# shellcheck shell=sh disable=SC2154
# Puts an upload in place, a file at a time, once it is written down in the ledger, and restarts what reads it, or says what
# runs of that. Sent together with lying.sh, ledger.sh, unit_log.sh, restarting.sh.
# usage: push {yes|no} STATE APP ID WHO OWNER MODES HEAD MANIFEST SPECIAL {look UNIT…|STABLE-SECONDS LIMIT [?]UNIT…}
#   yes       only says what would change
#   MODES     as rsync's --chmod takes them
#   HEAD      the beginning of the line in the ledger
#   MANIFEST  KIND<TAB>DIGEST-OR-TARGET<TAB>PATH of what lies in STATE/incoming/push-ID/tree
#   SPECIAL   OWNER<TAB>MODE<TAB>PATH of files that have another owner and mode than the rest
# Out: {new|other|same}<TAB>PATH, then runs<TAB>UNIT of those that run, or as restart_units says. Exits 30 with the holder if the lock is held, 32 if the upload
# is not what was sent, 1 and says why if something is in the way; nothing was put in place then. 1 as well if a unit is down.
main() {
	dry=$1 state=$2 app=$3 id=$4 who=$5 owner=$6 modes=$7 head=$8 manifest=$9
	shift 9
	special=$1
	shift
	umask 077
	LC_ALL=C
	export LC_ALL
	tab=$(printf '\t')
	incoming=$state/incoming/push-$id
	tree=$incoming/tree
	work=$(mktemp -d) || exit 1
	trap 'rm -rf "$work"; [ "$dry" = yes ] || rm -rf "$incoming"' EXIT
	# Whoever waits for this may be gone.
	trap 'exit 1' HUP INT TERM PIPE
	printf '%s' "$manifest" | sort >"$work/manifest" || exit 1
	if [ "$dry" != yes ]; then
		take_lock
		verify
	elif [ -f "$state/lock" ] && ! flock --shared --nonblock "$state/lock" true; then
		busy
	fi
	look
	if [ "$dry" != yes ] && [ -s "$work/changed" ]; then
		write_down || fail 'the ledger could not be written, so nothing was put in place'
		place || fail "not everything could be put in place; the ledger names all of push $id"
		(cd -P "$app" && lying "$(cut -f 3 "$work/changed")") | sort | cmp -s "$work/changed" - ||
			fail "not everything is in place as it was sent; the ledger names all of push $id"
	fi
	# Whoever is to hear this may be behind a dead link: nothing waits for it but what follows.
	[ "$1" != look ] || exec 9>&-
	cat "$work/seen"
	[ "$1" != look ] || runs "$@"
	# The lock is held until the units are judged: a deploy would restart them as well.
	[ "$dry" = yes ] || [ "$1" = look ] || restart_units "$@"
}

# Which of the units run, and so go on with what they have read.
runs() {
	shift
	for unit in "$@"; do
		[ "$(property "$unit" ActiveState)" != active ] || printf 'runs\t%s\n' "$unit"
	done
}

fail() {
	echo "$1" >&2
	exit "${2:-1}"
}

busy() {
	head -n 1 "$state/lock"
	exit 30
}

take_lock() {
	if [ -L "$state" ] || [ "$(stat -c %u "$state")" != "$(id -u)" ]; then fail "$state is not a directory of our own"; fi
	chmod 0700 "$state" || exit 1
	exec 9<>"$state/lock" || exit 1
	# Those who only look take it for an instant.
	flock --wait 5 9 || busy
	printf '%s, since %s\n' "ua-vpsctl push $id by $who" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$state/lock"
	# Uploads that nobody came back for.
	find "$state/incoming" -mindepth 1 -maxdepth 1 -name 'push-*' -mtime +2 -exec rm -rf {} +
	# What was made ready was so under this lock, by a push that was killed.
	for ready in "$state"/incoming/push-*/ready; do
		[ ! -e "$ready" ] || rm -rf "${ready%/*}"
	done
}

# Every byte of what was sent is what was read, and nothing lies beside it.
verify() {
	cd -P "$tree" || fail 'the upload is gone' 32
	find . -depth -name .rsync-partial -exec rm -rf {} +
	cut -f 3 "$work/manifest" | sort >"$work/paths"
	find . ! -type d -printf '%P\n' | sort | cmp -s "$work/paths" - ||
		fail 'the upload has other files than were sent' 32
	lying "$(cat "$work/paths")" | sort | cmp -s "$work/manifest" - ||
		fail 'the upload is not what was read: a file changed meanwhile' 32
}

# What lies there now. What is not a file or a link, and whatever is behind a link, is left alone.
look() {
	if [ -L "$app" ] || ! cd -P "$app"; then fail "$app is not a directory on the VPS"; fi
	awk -F '\t' '{ path = $3; while (sub(/\/[^\/]*$/, "", path)) print path }' "$work/manifest" | sort -u >"$work/dirs"
	{
		while IFS= read -r dir; do
			if [ -L "./$dir" ] || { [ -e "./$dir" ] && [ ! -d "./$dir" ]; }; then printf '%s\n' "$dir"; fi
		done <"$work/dirs"
		lying "$(cut -f 3 "$work/manifest")" >"$work/there"
		awk -F '\t' '$1 == "d" || $1 == "o" { print $3 }' "$work/there"
	} | sort -u >"$work/way"
	[ ! -s "$work/way" ] ||
		fail "in the way on the VPS, and left alone (a link, or no file): $(head -n 5 "$work/way" | tr '\n' ' ')"
	awk '
		BEGIN { FS = OFS = "\t" }
		FILENAME == ARGV[1] { wanted[$3] = $1 FS $2; next }
		{ print ($1 == "-" ? "new" : (($1 FS $2) == wanted[$3] ? "same" : "other")), $3 }
	' "$work/manifest" "$work/there" >"$work/seen"
	[ "$(wc -l <"$work/seen")" -eq "$(wc -l <"$work/manifest")" ] || fail "files of $app changed while they were looked at"
	awk -F '\t' '
		FILENAME == ARGV[1] { same[$2] = ($1 == "same"); next }
		!same[$3]
	' "$work/seen" "$work/manifest" >"$work/changed"
}

# On the disk before anything else is: whatever happens, the ledger names too much rather than too little.
write_down() {
	line=$(as_paths <"$work/changed") && ledger=$state/ledger.jsonl || return 1
	# A line that a full disk cut short must not take this one with it.
	[ -z "$(tail -c 1 "$ledger" 2>/dev/null)" ] || echo >>"$ledger" || return 1
	# By the clock that also says when a process was started.
	printf '%s"placed":%s,%s\n' "$head" "$(date +%s.%6N)" "$line" >>"$ledger" && sync "$ledger"
}

# Owner and mode are right before a file has its name: rsync writes each one elsewhere, and renames it.
place() {
	ready=$incoming/ready temp=$incoming/temp
	rsync --recursive --links --perms --owner --group --chown="$owner" --chmod="$modes" "$tree/" "$ready/" && mkdir "$temp" || return 1
	printf '%s' "$special" | while IFS=$tab read -r other mode path; do
		chown -h -- "$other" "$ready/$path" && chmod -- "$mode" "$ready/$path" || exit 1
	done || return 1
	{ echo . && cat "$work/dirs"; } | while IFS= read -r dir; do
		[ -d "$app/$dir" ] || continue
		# What is there stays as it is: it may be private, or its group's.
		chown --reference="$app/$dir" -- "$ready/$dir" && chmod --reference="$app/$dir" -- "$ready/$dir" || exit 1
		# Between file systems nothing is renamed; there rsync writes beside the place.
		stat -c %d "$app/$dir" "$temp"
	done >"$work/systems" || return 1
	# rsync takes what begins with `#` or `;` for a comment; with `./` before it the top directory is sent along.
	cut -f 3 "$work/changed" | sed 's,^[#;],./&,' | tr '\n' '\0' >"$work/changed0"
	set -- --links --perms --owner --group --checksum --files-from="$work/changed0" --from0
	# What a push that is killed was at lies in no directory of the app then.
	[ "$(sort -u "$work/systems" | wc -l)" -ne 1 ] || set -- "$@" --temp-dir="$temp"
	rsync "$@" "$ready/" "$app/" && sync -f "$app"
}

main "$@"
