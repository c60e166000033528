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

# After a reboot something is left to do about this release. Half a line would hide the next one, so it is all or nothing.
note_pending() {
    ! grep -qxF -- "$id" "$state/pending" 2>/dev/null || return 0
    { [ ! -f "$state/pending" ] || cat "$state/pending"; } >"$state/pending.new" &&
        printf '%s\n' "$id" >>"$state/pending.new" && mv "$state/pending.new" "$state/pending"
}

# Or nothing is any more. Where the others cannot be written anew all of them stay: recovering once more does no harm.
forget_pending() {
    [ -f "$state/pending" ] || return 0
    grep -vxF -- "$id" "$state/pending" >"$state/pending.new"
    case $? in
        0) mv "$state/pending.new" "$state/pending" ;;
        1) rm -f "$state/pending" "$state/pending.new" ;;
        *) rm -f "$state/pending.new" ;;
    esac
}
