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
		# A link would have root change somebody else's file. What was looked at is held open, so that it is also what is
		# changed, whatever the app's user makes of its name meanwhile.
		if ! plain "$file" || ! command exec 8<"$file" || [ "$(readlink /proc/self/fd/8)" != "$PWD/$file" ]; then
			printf 'odd\t%s\n' "$file"
			continue
		fi
		printf 'was\t%s\t%s\n' "$file" "$(held)"
		if [ "$dry" != yes ]; then
			[ -z "$owner" ] || chown -- "$owner" /proc/self/fd/8 || return 1
			chmod -- "$mode" /proc/self/fd/8 || return 1
			printf 'now\t%s\t%s\n' "$file" "$(held)"
		fi
	done
}

plain() {
	[ "$(readlink -e -- "$1")" = "$PWD/$1" ] && [ -f "$1" ]
}

held() {
	stat --dereference --format='%U:%G	%a' /proc/self/fd/8
}
main "$@"
