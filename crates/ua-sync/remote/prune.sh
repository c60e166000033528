# shellcheck shell=sh
# Deletes workspaces that are still what they were when their copies were proved.
# $1 the root, $2 the marker's name, $3 "yes" if databases count as content, $4 the time of the listing, $5 the awk
# program, then for each workspace its id and its record.
# Each is moved out of everybody's reach first, looked at once more there, and only then removed.
# Out: a line for each: "deleted|changed|gone|failed <id>".
main() {
	root=$1 marker=$2 database=$3 now=$4 records=$5
	shift 5
	cd "$root" || return 3
	# A client that is gone ends this between two workspaces, not within one.
	trap '' HUP PIPE
	restore
	trash=$(mktemp -d ./.ua-prune.XXXXXX) || return 1
	while [ "$#" -gt 1 ]; do
		printf '%s %s\n' "$(one "$1" "$2")" "$1" || break
		shift 2
	done
	rmdir "$trash"
}

one() {
	if [ ! -d "./$1" ] || [ -L "./$1" ]; then
		echo gone
	elif [ "$(record "./$1")" != "$2" ]; then
		echo changed
	elif ! mv -T "./$1" "$trash/$1"; then
		echo failed
	elif [ "$(record "$trash/$1")" != "$2" ]; then
		mv -nT "$trash/$1" "./$1"
		echo changed
	elif mv -T "$trash/$1" "$trash/.dead" && rm -rf --one-file-system "${trash:?}/.dead"; then
		echo deleted
	else
		echo failed
	fi
}

record() {
	find "$1" \( -type d \( ! -readable -o ! -executable \) -printf 'U ' -o -printf 'R ' \) -printf '%d %y %s %T@ %f\0' |
		awk -v base=1 -v now="$now" -v marker="$marker" -v database="$database" "$records" |
		tr '\000' '\n' | sed -n 's/^W //p'
}

# What a run that was cut off had moved away comes back, unless there is something of that name again. Only what it had
# begun to remove goes.
restore() {
	# shellcheck disable=SC2016 # the inner sh is to expand it
	find . -mindepth 1 -maxdepth 1 -type d -name '.ua-prune.*' -user "$(id -un)" -exec sh -c '
		rm -rf --one-file-system "${1:?}/.dead"
		for moved in "$1"/*; do
			[ ! -d "$moved" ] || mv -nT "$moved" "./${moved##*/}"
		done
		rmdir "$1" 2>/dev/null || echo "left $1" >&2
	' sh {} \;
}
main "$@"
