# shellcheck shell=sh disable=SC2034,SC2154
# What an activation was told, and proving that the app is right. Sent together with the scripts that do so; they set
# $release (its orders, or others in $ordered), $work (lists of the run) and $running (UNIT<TAB>COMMITS that the unit may say it runs).

# The first field of a key.
order() {
    awk -F '\t' -v key="$1" '$1 == key { print $2; exit }' "${ordered:-$release/orders}"
}

# All fields of every line of a key.
orders() {
    awk -v key="$1$tab" 'index($0, key) == 1 { print substr($0, length(key) + 1) }' "${ordered:-$release/orders}"
}

read_orders() {
    app=$(order app) user=$(order user) group=$(order group)
    for list in unit idle restart upload make enable template directory preserve step output health version session; do
        orders "$list" >"$work/$list" || return 1
    done
}

# One line without anything that JSON or a terminal would take for more than text.
plain() {
    printf '%s' "$1" | tr '\t\n' '  ' | tr -d '\000-\037\177"\134' | cut -c 1-900
}

# So many of something: `1 path`, `2 paths`.
many() { if [ "$1" -eq 1 ]; then echo "1 $2"; else echo "$1 $2s"; fi; }

# Lines as a list.
joined() {
    awk 'NR > 1 { printf "; " } { printf "%s", $0 } END { print "" }'
}

# UNIT ACTIVE SUB PID RESTARTS START RESULT JOB of every unit; the last is empty where systemd has nothing to do about it
unit_states() {
    xargs systemctl show --property=Id,ActiveState,SubState,MainPID,NRestarts,ExecMainStartTimestampMonotonic,Result,Job \
        <"$work/unit" |
        awk '
            function row() { if (id != "") print id, active, sub_state, pid, restarts, start, result, job; id = result = job = "" }
            BEGIN { OFS = "\t" }
            { at = index($0, "="); key = substr($0, 1, at - 1); value = substr($0, at + 1) }
            key == "" { row() }
            key == "Id" { id = value }
            key == "ActiveState" { active = value }
            key == "SubState" { sub_state = value }
            key == "MainPID" { pid = value }
            key == "NRestarts" { restarts = value }
            key == "ExecMainStartTimestampMonotonic" { start = value }
            key == "Result" { result = value }
            key == "Job" { job = value }
            END { row() }
        '
}

# What PART of the proof found; what is wrong with the unit that it is about, where that is known.
right() { echo "$1" >>"$work/right.$part"; }
wrong() {
    echo "$1" >>"$work/wrong.$part"
    [ -z "${2-}" ] || echo "$2" >>"$work/failing.$part"
}

# Everything that is asked must be right in one pass. The parts have nothing to do with each other.
prove_once() {
    for part in health versions sessions; do
        : >"$work/right.$part" && : >"$work/wrong.$part" && : >"$work/failing.$part" || return 1
        (prove_"$part" || wrong "the proof of $part could not be carried out") &
    done
    wait
    for kind in right wrong; do
        cat "$work/$kind.health" "$work/$kind.versions" "$work/$kind.sessions" >"$work/$kind"
    done
    [ ! -s "$work/wrong" ]
}

# The status of URL, and its body in a file of ours.
ask() {
    : >"$work/body.$part"
    curl --silent --max-time 5 --max-filesize 1000000 --output "$work/body.$part" --write-out '%{http_code}' "$1" || :
}

prove_health() {
    while IFS=$tab read -r name statuses url; do
        got=$(ask "$url")
        if among "$got" "$statuses"; then
            right "$name $got"
        else
            # What answers by the same name is told apart by its version.
            wrong "$name answers $got at $url" "$(awk -F '\t' -v name="$name" '$1 == name { print $2; exit }' "$work/version")"
        fi
    done <"$work/health"
}

# Is STATUS one of `200,3xx`?
among() {
    class=${1%??}xx
    case ",$2," in
        *",$1,"* | *",$class,"*) return 0 ;;
    esac
    return 1
}

# A unit that was not restarted rightly says an older commit, if what it is made of is the same since.
prove_versions() {
    [ -s "$running" ] || return 0
    while IFS=$tab read -r name unit field url; do
        commits=$(awk -F '\t' -v unit="$unit" '$1 == unit { print $2 }' "$running")
        ask "$url" >/dev/null
        got=$(sqlite3 -batch :memory: \
            "SELECT json_extract(CAST(readfile('$work/body.$part') AS TEXT), '\$.$field')" 2>/dev/null)
        case ",$commits," in
            *",${got:--},"*) right "$name runs $(short "$got")" ;;
            *) wrong "$name runs $(short "$(plain "${got:-an unknown version}")"), not $(short "${commits##*,}")" "$unit" ;;
        esac
    done <"$work/version"
}

short() { printf '%s' "$1" | cut -c 1-18; }

# Where the rows of the workers are, and what a row must be to be from after TIME, as SQLite reads that.
sessions() {
    database=$(order sessions_database)
    orders sessions_columns >"$work/columns"
    IFS=$tab read -r table column status fresh <"$work/columns"
    young=''
    if [ "$fresh" != - ] && [ "$(query "SELECT count(*) FROM pragma_table_info('$table') WHERE name = '$fresh'")" = 1 ]; then
        young="AND CASE WHEN typeof($fresh) IN ('integer', 'real') THEN julianday($fresh, 'unixepoch')
            ELSE julianday($fresh) END >= julianday($1)"
    else
        fresh=''
    fi
}

# `a,b` as a list of SQL.
words() { printf "'%s'" "$(order "$1" | sed "s/,/', '/g")"; }

restarted() { grep -qxF -- "$1" "$work/restart"; }

# The row of a worker that was restarted has to be younger than that.
prove_sessions() {
    [ -s "$work/session" ] || return 0
    sessions "'${since:-now}'"
    ready=$(words sessions_ready)
    while IFS=$tab read -r session unit; do
        newer=''
        if restarted "$unit"; then newer=$young; fi
        if [ "$(query "SELECT count(*) FROM $table WHERE $column = '$session' AND $status IN ($ready) $newer")" = 1 ]; then
            right "$session is ready"
        else
            row=$(query "SELECT $status${fresh:+" || ' at ' || $fresh"} FROM $table WHERE $column = '$session'")
            wrong "$session has no row that is ready${newer:+ and younger than the restart} (${row:-none at all})" "$unit"
        fi
    done <"$work/session"
}

# As the owner, so that no file of root's is left beside the database.
query() {
    timeout 10 runuser -u "$user" -- sqlite3 -readonly -batch -cmd '.timeout 3000' "$database" "$1" 2>&1 </dev/null
}
