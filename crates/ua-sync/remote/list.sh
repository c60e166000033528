# shellcheck shell=sh
# Everything there is to know of the workspaces, in one pass over them; nothing is changed.
# $1 the root, $2 the marker's name, $3 the same as a pattern, $4 the most bytes of one, $5 "yes" if databases count as
# content, $6 the artifacts, $7 the names of directories of workspaces as an extended regular expression, $8 the awk
# program, then `./id`s; none are all.
# Out: a line, then gzip of: records that end with NUL, an end record, and a tar of the markers.
main() {
	root=$1 marker=$2 pattern=$3 longest=$4 database=$5 artifacts=$6 nested=$7 records=$8
	shift 8
	# Names are bytes.
	export LC_ALL=C
	for tool in find awk tar gzip; do
		if ! command -v "$tool" >/dev/null; then
			echo "there is no program $tool on the VPS" >&2
			return 4
		fi
	done
	if ! cd "$root" 2>/dev/null; then
		echo "there is no directory $root on the VPS" >&2
		return 3
	fi
	now=$(date +%s.%N)
	there=no
	[ ! -d "$artifacts" ] || there=yes
	base=1
	if [ "$#" -eq 0 ]; then
		base=0
		set -- .
	fi
	printf 'ua-list-1\n'
	{
		printf 'H %s %s\0' "$now" "$there"
		seek "$@" | awk -v base="$base" -v now="$now" -v marker="$marker" -v database="$database" -v nested="$nested" "$records"
		markers "$@" | tar --create --null --no-recursion --format=gnu --ignore-failed-read --files-from=- --file=- 2>/dev/null
	} | gzip -1
}

# All entries of the workspaces, each workspace before what is in it. Directories that cannot be read are marked U. Of what
# may be a start its path is printed, since that is its id, and of the rest the name.
seek() {
	named='*'
	[ "$base" = 0 ] || named='./*/*/*'
	find "$@" -mindepth "$((1 - base))" \( -path './.*' -o -path './remote_vps_*' \) -prune -o \
		\( -type d \( ! -readable -o ! -executable \) -printf 'U ' -o -printf 'R ' \) \
		\( -path "$named" -printf '%d %y %s %T@ %f\0' -o -printf '%d %y %s %T@ %p\0' \)
	printf 'X %s\0' "$?"
}

# Files of the marker's name where a marker may be: in a workspace, and in a directory in one of a directory of workspaces.
markers() {
	find "$@" -mindepth "$((1 - base))" -maxdepth "$((4 - base))" -regextype posix-extended \
		-type d ! -regex "\./([^/]*|($nested)/[^/]*|($nested)/[^/]*/[^/]*)" -prune -o \
		-type f -name "$pattern" -size "-$((longest + 1))c" -print0 2>/dev/null
}
main "$@"
