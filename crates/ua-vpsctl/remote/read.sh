# shellcheck shell=sh
# A file as it is, or its last lines. It must still be the one that was judged. usage: read REAL-PATH LINES
main() {
	if [ "$(readlink -e -- "$1")" != "$1" ] || [ ! -f "$1" ]; then
		echo "$1 is not what it was a moment ago" >&2
		return 1
	fi
	if [ -n "$2" ]; then
		tail -n "$2" -- "$1"
	else
		cat -- "$1"
	fi
}
main "$@"
