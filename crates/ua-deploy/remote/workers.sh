# shellcheck shell=sh disable=SC2034,SC2154
# The rows that workers keep in SQLite, and whether a restart would end a mission. Sent together with prove.sh.
#
# A worker is busy if a mission has a busy status and names as its worker the owner of a session whose unit has a living
# process, however old the times in either row are: nothing renews them while a mission runs. The status of the session
# says nothing, since an idle worker is `active` and a dispatcher may write `idle` over it.
#
# A worker also counts as busy if its process renewed its lease once and then let it expire: it may still work on a mission
# that another process ended in the table.

# Where the rows are, and what is asked.
workers() {
    database=$(order workers_database)
    orders workers_sessions >"$work/columns"
    IFS=$tab read -r s_table s_id s_status s_owner <"$work/columns"
    session_rows="SELECT $(flat "$s_id") || char(9) || $(flat "$s_status") || char(9) || $(flat "$s_owner") FROM $s_table"
    orders workers_missions >"$work/columns"
    mission_rows=''
    [ -s "$work/columns" ] || return 0
    IFS=$tab read -r m_table m_id m_status m_worker <"$work/columns"
    mission_rows="SELECT $(flat "s.$s_id") || char(9) || $(flat "m.$m_id") FROM $m_table m JOIN $s_table s
        ON m.$m_worker = s.$s_owner WHERE m.$m_status IN ($(words workers_busy))"
    orders workers_lease >"$work/columns"
    [ -s "$work/columns" ] || return 0
    IFS=$tab read -r l_expires l_renewed <"$work/columns"
    mission_rows="$mission_rows UNION ALL SELECT $(flat "$s_id") || char(9) || char(9)
        || (strftime('%s', 'now') - strftime('%s', $l_renewed)) FROM $s_table
        WHERE $s_owner IS NOT NULL AND julianday($l_expires) < julianday('now')"
}

# A column as text of one line without tabs; empty where it is null.
flat() { printf "replace(replace(ifnull(%s, ''), char(9), ' '), char(10), ' ')" "$1"; }

# `a,b` as a list of SQL.
words() { printf "'%s'" "$(order "$1" | sed "s/,/', '/g")"; }

# Runs a command as the owner of the database, so that no file of root's is left beside it: the app could not write any
# more. Where root owns it the app's user is asked: root opens nothing that another user can swap.
as_reader() {
    reader=$(stat -L -c %U "$database") || return 1
    [ "$reader" != root ] || reader=$user
    runuser -u "$reader" -- "$@"
}

# Prints what SQL selects and leaves no file behind: reading a database in WAL mode that nobody has open would make two.
# Where a process was killed with it open, a copy is read, since reading would recover it.
query() {
    # shellcheck disable=SC2016
    as_reader timeout 10 sh -c '
        database=$1
        uri=file:$(printf %s "$database" | sed "s/%/%25/g; s/?/%3f/g; s/#/%23/g")
        log=$(od -An -tu1 -j18 -N1 "$database" | tr -d " ")
        if [ "$log" != 2 ] || { [ -e "$database-wal" ] && [ -e "$database-shm" ]; }; then
            uri="$uri?mode=ro"
        elif [ -e "$database-wal" ]; then
            copy=$(mktemp -d) || exit 1
            trap "rm -rf \"\$copy\"" EXIT
            trap "exit 1" TERM
            cp "$database" "$copy/db" && cp "$database-wal" "$copy/db-wal" || exit 1
            uri=$copy/db
        else
            uri="$uri?immutable=1"
        fi
        sqlite3 -batch -bail -cmd ".timeout 3000" "$uri" "$2"
    ' sh "$database" "$1" 2>&1 </dev/null
}

# SESSION<TAB>MISSION of every mission that a restart would end, and SESSION<TAB><TAB>SECONDS since the last renewal of
# every expired lease, into $work/missions. Fails, and leaves the error there, where they cannot be read.
running_missions() {
    : >"$work/missions"
    [ -n "$mission_rows" ] && [ -e "$database" ] || return 0
    query "$mission_rows" >"$work/missions"
}

# The same within a write transaction, which keeps workers from claiming another mission until let_go is called.
hold_claims() {
    : >"$work/missions"
    [ -n "$mission_rows" ] && [ -e "$database" ] || return 0
    rm -f "$work/hold" "$work/held"
    mkfifo "$work/hold" && : >"$work/held" || return 1
    # What an earlier round wrote must not be taken for this one's.
    round=$((${round:-0} + 1))
    exec 7<>"$work/hold"
    # Closed for good: a redirection of a function is undone after it, so the shell would keep a copy.
    (
        exec 7<&- 9<&-
        as_reader sqlite3 -batch -bail -cmd '.timeout 3000' "$database"
    ) <"$work/hold" >"$work/held" 2>&1 &
    holder=$!
    (printf '%s;\n' 'BEGIN IMMEDIATE' "$mission_rows" "SELECT 'end $round'" >&7)
    tries=50
    while ! grep -qx "end $round" "$work/held"; do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ] || ! kill -0 "$holder" 2>/dev/null; then
            cp "$work/held" "$work/missions"
            let_go
            return 1
        fi
        sleep 0.1
    done
    sed "/^end $round\$/d" "$work/held" >"$work/missions"
}

# Ends the transaction; nothing was written in it.
let_go() {
    [ -n "${holder-}" ] || return 0
    exec 7<&-
    wait "$holder" || :
    holder=''
}

# SESSION<TAB>UNIT<TAB>TEXT of each worker among those whose units stand in FILE, and that a restart would interrupt or
# might, into $work/busy. READ is how the missions are looked at.
find_busy() {
    doubt=''
    "$2" || doubt=" (its missions could not be read: $(plain "$(cat "$work/missions")"))"
    unit_states | awk -F '\t' -v up="$(uptime_s)" '$4 > 0 { printf "%s\t%.0f\n", $1, up - $6 / 1000000 }' >"$work/alive"
    while IFS=$tab read -r session unit _; do
        age=$(awk -F '\t' -v unit="$unit" '$1 == unit { print $2 }' "$work/alive")
        if ! grep -qxF -- "$unit" "$1" || [ -z "$age" ]; then continue; fi
        if [ -n "$doubt" ]; then
            printf '%s\t%s\t%s\n' "$session" "$unit" "$session$doubt"
        else
            # A lease that was renewed before the process started is not its own.
            awk -F '\t' -v session="$session" -v unit="$unit" -v age="$age" '
                $1 != session { next }
                $2 != "" { list = list (n++ ? ", " : "mission ") $2 }
                $2 == "" && $3 < age { quiet = "has not renewed its lease for " $3 " s" }
                END { if (n || quiet) print session "\t" unit "\t" session " (" (n ? list : quiet) ")" }
            ' "$work/missions"
        fi
    done <"$work/session" >"$work/busy"
}
