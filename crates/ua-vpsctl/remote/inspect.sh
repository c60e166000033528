# shellcheck shell=sh
# One workspace: what is newest in it, what is largest of its results, how its log and its transcript end.
# usage: inspect ROOT ID
# Out: parts, each "== NAME" and lines; names of files with what a terminal would obey taken out
main() {
	# No link leads elsewhere, neither the workspace nor the directory above it.
	if ! cd -P "$1" 2>/dev/null || ! top=$(pwd -P) || ! cd -P "./$2" 2>/dev/null || [ "$(pwd -P)" != "$top/$2" ]; then
		echo "there is no workspace $2 in $1 on the VPS" >&2
		return 1
	fi
	echo '== newest'
	find . -type f -printf '%T@ %s %P\n' | sort -rn | head -n 20
	echo '== products'
	[ ! -d work_products ] || find work_products -type f -printf '%s %P\n' | sort -rn | head -n 10
	ending run.log 60
	for transcript in transcript.md transcript.jsonl transcript.txt; do
		ending "$transcript" 40
	done
}

ending() {
	[ -f "$1" ] && [ ! -L "$1" ] || return 0
	echo "== $1"
	tail -n "$2" -- "$1" | cut -c 1-2000
}
main "$@"
