# shellcheck shell=sh
# The names that a secret file assigns, and nothing of their values. usage: keys REAL-PATH
main() {
	sed -n 's/^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}\([A-Za-z_][A-Za-z0-9_]*\)[[:space:]]*=.*/\2/p' "$1" | sort -u
}
main "$@"
