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

# UNIT ACTIVE SUB PID RESTARTS START RESULT JOB GROUP of every unit; JOB is empty where systemd has nothing to do about it,
# GROUP is its control group.
unit_states() {
    xargs systemctl show --property=Id,ActiveState,SubState,MainPID,NRestarts,ExecMainStartTimestampMonotonic,Result,Job,ControlGroup \
        <"$work/unit" |
        awk '
            function row() {
                if (id != "") print id, active, sub_state, pid, restarts, start, result, job, group
                id = result = job = group = ""
            }
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
            key == "ControlGroup" { group = value }
            END { row() }
        '
}

# What PART of the proof found: right TEXT; wrong KEY LIMIT UNIT TEXT, with the seconds that it may stay so after a restart,
# and `-` where no unit is known.
right() { echo "$1" >>"$work/right.$part"; }
wrong() { printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$work/wrong.$part"; }

# Everything that is asked must be right in one pass. The parts have nothing to do with each other. What is not right goes
# to $work/found, and to $work/wrong in words, unless $work/excused has its key: then to $work/excuse.
prove_once() {
    for part in health versions sessions; do
        : >"$work/right.$part" && : >"$work/wrong.$part" && : >"$work/other.$part" || return 1
        (prove_"$part" || wrong "$part" 0 - "the proof of $part could not be carried out") &
    done
    wait
    for part in health versions sessions; do cat "$work/right.$part"; done >"$work/right"
    for part in health versions sessions; do cat "$work/wrong.$part"; done >"$work/all"
    touch "$work/excused" || return 1
    awk -F '\t' -v excuse="$work/excuse" '
        BEGIN { printf "" >excuse }
        FILENAME == ARGV[1] { excused[$1] = 1; next }
        $1 in excused { print $4 >excuse; next }
        { print }
    ' "$work/excused" "$work/all" >"$work/found"
    cut -f 4 "$work/found" >"$work/wrong"
    [ ! -s "$work/wrong" ]
}

# The status of URL, and its body in a file of ours.
ask() {
    : >"$work/body.$part"
    curl --silent --max-time 5 --max-filesize 1000000 --output "$work/body.$part" --write-out '%{http_code}' "$1" || :
}

prove_health() {
    while IFS=$tab read -r name statuses url unit limit; do
        got=$(ask "$url")
        if among "$got" "$statuses"; then
            right "$name $got"
        else
            [ "$got" != 000 ] || got='nothing'
            wrong "health:$name" "${limit:-60}" "${unit:--}" "$name answers $got at $url"
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

# A unit that was not restarted rightly says an older commit, if what it is made of is the same since. DUTY says whether an
# endpoint has to tell the commit: `must`; may be `silent`, but not tell another one; may tell `any`.
prove_versions() {
    [ -s "$running" ] || return 0
    while IFS=$tab read -r name unit field url duty limit; do
        commits=$(awk -F '\t' -v unit="$unit" '$1 == unit { print $2 }' "$running")
        ask "$url" >/dev/null
        got=$(sqlite3 -batch :memory: \
            "SELECT json_extract(CAST(readfile('$work/body.$part') AS TEXT), '\$.$field')" 2>/dev/null)
        case ",$commits," in
            *",${got:--},"*)
                right "$name runs $(short "$got")"
                continue
                ;;
        esac
        told="$name runs $(short "$(plain "${got:-an unknown version}")"), not $(short "${commits##*,}")"
        case ${duty:-must}:${got:+told} in
            any:told) echo "$told, by an endpoint that is optional" >>"$work/other.$part" ;;
            any: | silent:) ;;
            *) wrong "version:$name" "${limit:-60}" "$unit" "$told" ;;
        esac
    done <"$work/version"
}

short() { printf '%s' "$1" | cut -c 1-18; }

restarted() { grep -qxF -- "$1" "$work/restart"; }

# The row of a worker that was restarted has to be of another process than before: $work/owners has whose it was.
prove_sessions() {
    [ -s "$work/session" ] || return 0
    workers
    # Orders of a release that does not say where the rows are.
    [ -n "$s_table" ] || return 0
    rows=$(query "$session_rows") || rows="$tab$(plain "$rows")"
    ready=,$(order workers_ready),
    while IFS=$tab read -r session unit limit; do
        row=$(printf '%s\n' "$rows" | awk -F '\t' -v id="$session" '$1 == id { print; exit }')
        status=$(printf '%s' "$row" | cut -f 2) holds=$(printf '%s' "$row" | cut -f 3)
        held=$(awk -F '\t' -v id="$session" '$1 == id { print $3; exit }' "$work/owners" 2>/dev/null)
        if [ -z "$row" ]; then
            said="has no row"
            case $rows in "$tab"*) said="cannot be asked about: ${rows#"$tab"}" ;; esac
        elif restarted "$unit" && { [ -z "$holds" ] || [ "$holds" = "$held" ]; }; then
            said="has not said anything since its restart"
        else
            case $ready in
                *,"$status",*)
                    right "$session is ready"
                    continue
                    ;;
            esac
            said="is $(plain "$status")"
        fi
        wrong "session:$session" "${limit:-60}" "$unit" "$session $said"
    done <"$work/session"
}
