# shellcheck shell=sh disable=SC2154
# The record of $release, which is $id below $state. Sent together with the scripts that write it.

# Makes LINE the record. The history has a line for every change of every record, and the last one of an id counts, so
# that a release which is cut off leaves how far it came.
write_record() {
    printf '%s\n' "$1" >"$release/record.json.new" || return 1
    # A line that a full disk cut short must not take this one with it.
    [ -z "$(tail -c 1 "$state/history.jsonl" 2>/dev/null)" ] || echo >>"$state/history.jsonl" || return 1
    printf '%s\n' "$1" >>"$state/history.jsonl" && mv "$release/record.json.new" "$release/record.json"
}

# After a reboot something is left to do about this release.
note_pending() {
    grep -qxF -- "$id" "$state/pending" 2>/dev/null || printf '%s\n' "$id" >>"$state/pending"
}

# Or nothing is any more.
forget_pending() {
    [ -f "$state/pending" ] || return 0
    grep -vxF -- "$id" "$state/pending" >"$state/pending.new"
    if [ -s "$state/pending.new" ]; then mv "$state/pending.new" "$state/pending"; else rm -f "$state/pending" "$state/pending.new"; fi
}
