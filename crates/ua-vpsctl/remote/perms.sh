# shellcheck shell=sh
# Owner and mode of files that hold secrets. usage: perms DRY APP {FILE OWNER MODE}…; an empty owner is left as it is
# Out: "was|now<TAB>FILE<TAB>OWNER<TAB>MODE" or "none<TAB>FILE" or "odd<TAB>FILE"
main() {
	dry=$1 app=$2
	shift 2
	cd -P "$app" || return 1
	while [ "$#" -gt 2 ]; do
		file=$1 owner=$2 mode=$3
		shift 3
		if [ ! -e "$file" ] && [ ! -L "$file" ]; then
			printf 'none\t%s\n' "$file"
			continue
		fi
		# A link would have root change somebody else's file.
		if [ "$(readlink -e -- "$file")" != "$PWD/$file" ] || [ ! -f "$file" ]; then
			printf 'odd\t%s\n' "$file"
			continue
		fi
		printf 'was\t%s\t%s\n' "$file" "$(stat --format='%U:%G	%a' -- "$file")"
		if [ "$dry" != yes ]; then
			[ -z "$owner" ] || chown --no-dereference -- "$owner" "$file" || return 1
			chmod -- "$mode" "$file" || return 1
			printf 'now\t%s\t%s\n' "$file" "$(stat --format='%U:%G	%a' -- "$file")"
		fi
	done
}
main "$@"
