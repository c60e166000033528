# shellcheck shell=sh
# A file as it is, or its last lines. It must still be the one that was judged, and is held open, so that it is also the
# one that is read. usage: read REAL-PATH LINES
main() {
	if [ ! -f "$1" ] || ! command exec 8<"$1" || [ "$(readlink /proc/self/fd/8)" != "$1" ]; then
		echo "$1 is not what it was a moment ago" >&2
		return 1
	fi
	if [ -n "$2" ]; then
		tail -n "$2" <&8
	else
		cat <&8
	fi
}
main "$@"
