# shellcheck shell=sh
# Deletes workspaces that are still what they were when their copies were proved.
# $1 the root, $2 the marker's name, $3 "yes" if databases count as content, $4 the time of the listing, $5 the names of
# directories of workspaces as an extended regular expression, $6 the awk program, then for each workspace its id, of one
# or two parts, and its record.
# Each is moved out of everybody's reach first, looked at once more there, and only then removed.
# Out: a line for each: "deleted|changed|gone|failed <id>".
main() {
	root=$1 marker=$2 database=$3 now=$4 nested=$5 records=$6
	shift 6
	# Names are bytes.
	export LC_ALL=C
	cd "$root" || return 3
	# Without links, to see that a directory of workspaces is none.
	root=$(pwd -P)
	# A client that is gone ends this between two workspaces, not within one.
	trap '' HUP PIPE
	# Two at once would undo each other's moves.
	exec 9<. || return 1
	if ! flock --nonblock 9; then
		echo "another deletion is under way there" >&2
		return 30
	fi
	restore
	code=0
	while [ "$#" -gt 1 ]; do
		word=$(delete "$1" "$2")
		[ "$word" != failed ] || code=1
		printf '%s %s\n' "$word" "$1" || break
		shift 2
	done
	return "$code"
}

# In a shell of its own, which may go into a directory of workspaces.
delete() {
	container='' leaf=$1 deep=no
	case $1 in
	*/*)
		container=${1%%/*} leaf=${1#*/} deep=yes
		;;
	esac
	if ! is_workspace "$1"; then
		echo "\`$1\` is no workspace" >&2
		echo failed
	elif ! enter || [ ! -d "./$leaf" ] || [ -L "./$leaf" ]; then
		echo gone
	elif [ "$(record "./$leaf")" != "$2" ]; then
		echo changed
	elif ! trash=$(mktemp -d ./.ua-prune.XXXXXX); then
		echo failed
	else
		word=$(remove "$leaf" "$2")
		if ! rmdir "$trash"; then
			echo "left $root/$container/$trash" >&2
			[ "$word" = deleted ] || word=failed
		fi
		echo "$word"
	fi
}

# Nothing else is deleted: no way out of the root, nothing hidden, no directory of workspaces as a whole.
is_workspace() {
	case /$1 in
	*/ | */.* | /*/*/*) return 1 ;;
	esac
	if [ "$deep" = yes ]; then
		is_nested "$container"
	else
		! is_nested "$1"
	fi
}

# Goes to where the workspace is, and through no link.
enter() {
	[ "$deep" = no ] || { cd "./$container" 2>/dev/null && [ "$(pwd -P)" = "$root/$container" ]; }
}

is_nested() {
	printf '%s\n' "$1" | grep -qxE "$nested"
}

remove() {
	if ! mv -T "./$1" "$trash/$1"; then
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
		awk -v base=1 -v deep="$deep" -v anonymous=yes -v now="$now" -v marker="$marker" -v database="$database" "$records" |
		tr '\000' '\n' | sed -n 's/^W //p'
}

# What a run that was cut off had moved away comes back, unless there is something of that name again. Only what it had
# begun to remove goes. It lies beside what it was moved from: at the root, or in a directory of workspaces.
restore() {
	# shellcheck disable=SC2016 # the inner sh is to expand it
	find . -mindepth 1 -maxdepth 2 -regextype posix-extended \
		-regex "\./(($nested)/)?[.]ua-prune[.][^/]*" -prune -type d -user "$(id -un)" -exec sh -c '
		rm -rf --one-file-system "${1:?}/.dead"
		for moved in "$1"/*; do
			[ ! -d "$moved" ] || mv -nT "$moved" "${1%/*}/${moved##*/}"
		done
		rmdir "$1" 2>/dev/null || echo "left $1" >&2
	' sh {} \; -o ! -regex "\./($nested)" -prune
}
main "$@"
