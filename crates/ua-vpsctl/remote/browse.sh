# shellcheck shell=sh
# What is in a directory. usage: browse REAL-PATH
# Out: TYPE SIZE TIME OWNER:GROUP MODE NAME, NUL after each
main() {
	if [ "$(readlink -e -- "$1")" != "$1" ] || [ ! -d "$1" ]; then
		echo "$1 is not a directory any more" >&2
		return 1
	fi
	cd "$1" && find . -mindepth 1 -maxdepth 1 -printf '%y %s %T@ %u:%g %m %f\0'
}
main "$@"
