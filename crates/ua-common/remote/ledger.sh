# shellcheck shell=sh disable=SC2154
# The drift ledger, $state/ledger.jsonl: a line for each push, oldest first, the id of the push at its beginning. Sent
# together with the scripts that ask.
#
# A deploy notes in its release which line was the last one before its switch. What comes before that line is settled for
# as long as that release serves: nothing has to be marked, and one that is taken back settles nothing.

last_push() {
    [ ! -f "$state/ledger.jsonl" ] || sed -n 's/^{"id":"\([^"]*\)".*}$/\1/p' "$state/ledger.jsonl" | tail -n 1
}

# The lines that are not settled. Where the line that was noted is not there any more that is all of them: too many
# rather than too few.
open_pushes() {
    [ -f "$state/ledger.jsonl" ] || return 0
    noted=''
    for dir in "$state"/releases/*; do
        [ ! -f "$dir/served" ] || noted=$(cat "$dir/pushed" 2>/dev/null)
    done
    awk -v noted="$noted" '
        { line[NR] = $0 }
        noted != "" && index($0, "{\"id\":\"" noted "\"") == 1 { settled = NR }
        END { for (n = settled + 1; n <= NR; n++) print line[n] }
    ' "$state/ledger.jsonl"
}

# What lines of the ledger put where, as lines of a manifest.
pushed_paths() {
    awk '
        function text(json,   at, c, out) {
            while ((at = index(json, "\\")) > 0) {
                c = substr(json, at + 1, 1)
                out = out substr(json, 1, at - 1) (c == "t" ? "\t" : c)
                json = substr(json, at + 2)
            }
            return out json
        }
        (at = index($0, "\"paths\":[\"")) && /"\]}$/ {
            n = split(substr($0, at + 10, length($0) - at - 12), item, "\",\"")
            for (i = 1; i <= n; i++) print text(item[i])
        }
    '
}

# The same as the end of a line: the lines of a manifest on stdin.
as_paths() {
    awk '
        BEGIN { printf "\"paths\":[" }
        { gsub(/[\\"]/, "\\\\&"); gsub(/\t/, "\\t"); printf "%s\"%s\"", (NR > 1 ? "," : ""), $0 }
        END { print "]}" }
    '
}
