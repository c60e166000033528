# shellcheck shell=sh
# The names that a secret file assigns, and nothing of their values. usage: keys REAL-PATH
# Nothing where its first line, but for comments, assigns nothing: what looks like a name there may be of a secret, such as
# the last line of a key.
main() {
	grep -v '^[[:space:]]*\([#;].*\)\{0,1\}$' "$1" | head -n 1 | grep -q "$assigns" || return 0
	sed -n "s/$assigns.*/\2/p" "$1" | sort -u
}

assigns='^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}\([A-Za-z_][A-Za-z0-9_]*\)[[:space:]]*='
main "$@"
