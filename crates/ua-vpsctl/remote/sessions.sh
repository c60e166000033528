# shellcheck shell=sh disable=SC2016
# The newest workspaces. usage: sessions ROOT PREFIX MOST NESTED
#   NESTED  extended regular expression of directories that hold workspaces instead of being one
# Out: TIME FILES WORK-PRODUCTS BYTES NAME, NUL after each, newest first
main() {
	root=$1 prefix=$2 most=$3 nested=$4
	cd "$root" 2>/dev/null || {
		echo "there is no directory $root on the VPS" >&2
		return 1
	}
	find . -regextype posix-extended -mindepth 1 -maxdepth 2 -type d ! -name '.*' \
		\( -regex "\./($nested)/[^/]*" -o ! -path './*/*' ! -regex "\./($nested)" \) -printf '%T@ %P\0' |
		awk -v prefix="$prefix" 'BEGIN { RS = ORS = "\0" } index(substr($0, index($0, " ") + 1), prefix) == 1' |
		sort -z -r -n | head -z -n "$most" |
		xargs -0 -r sh -c '
			for entry; do
				time=${entry%% *} name=${entry#* }
				find "./$name" -type f -printf "%s %P\n" | awk -v time="$time" "
					{ files++; bytes += \$1; sub(/^[0-9]+ /, \"\"); if (index(\$0, \"work_products/\") == 1) products++ }
					END { printf \"%s %d %d %.0f \", time, files, products, bytes }
				"
				printf "%s\0" "$name"
			done' sh
}
main "$@"
