# shellcheck shell=sh
# What lies at a path: links are resolved, nothing is opened. usage: find APP PATH
# Out: the app's real path, what PATH really is, its type, its size, its time, a line each
main() {
	app=$(readlink -e -- "$1") || {
		echo "there is no directory $1 on the VPS" >&2
		return 1
	}
	case $2 in
		/*) path=$2 ;;
		*) path=$app/$2 ;;
	esac
	real=$(readlink -e -- "$path") || {
		echo "there is no $path on the VPS" >&2
		return 1
	}
	printf '%s\n%s\n' "$app" "$real"
	# In words that do not depend on the language of the VPS.
	LC_ALL=C stat --format='%F
%s
%Y' -- "$real"
}
main "$@"
