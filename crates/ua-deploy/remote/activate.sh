# Puts an uploaded release in place and proves that it runs, or puts back what was there before. Runs as root in a
# transient unit, from a copy that only root can write.
# usage: activate STATE ID {forward|restore|expire}
#
# STATE/releases/ID, all of it root's own:
#   orders       KEY<TAB>FIELDS…, from the client
#   manifest     KIND<TAB>DIGEST-OR-TARGET<TAB>PATH; f file, x program, l link
#   before       the same for what lay at those paths before the switch; - nothing, o something else
#   backup/      tree/, outputs/ and units/ as they were; added, swapped and installed say what to take away
#   failed/      what a release that was taken back had written
#   work/        lists of this run, gone at its end
#   base.json, record.json, checks, log
#   switched     the app's directory holds something of this release; served: and it was proved to run

main() {
    set -u
    umask 077
    LC_ALL=C
    export LC_ALL
    state=$1 id=$2 verb=$3
    tab=$(printf '\t')
    release=$state/releases/$id
    backup=$release/backup work=$release/work
    exec >>"$release/log" 2>&1 </dev/null
    begin lock 'taking the lock'
    take_lock
    # Only now: whoever held it may have worked on the same release.
    mkdir -p "$work" || exit 1
    read_orders
    case $verb in
        forward) forward ;;
        restore)
            disarm
            hold_watchdog
            put_back 'the client asked for it'
            ;;
        expire)
            # Confirmed in the last moment, or overtaken: nothing is to be taken back.
            case $(cat "$release/record.json") in
                *'"verdict":"unconfirmed"'*) ;;
                *) leave ;;
            esac
            if [ ! -f "$release/served" ] || ! newest; then leave; fi
            begin confirm 'taking back what nobody confirmed'
            hold_watchdog
            put_back "nobody confirmed it within $(order confirm) s"
            ;;
        *) fail 2 "unknown verb $verb" ;;
    esac
}

forward() {
    record activating 1 old 'the activation ended before the switch'
    : >"$release/checks"
    begin verify 'verifying the upload'
    verify
    begin build 'building'
    build
    begin drain 'waiting for busy workers'
    drain
    begin switch 'switching'
    look
    hold_watchdog
    switch
    begin restart 'restarting'
    restart || undo 'systemd would not restart the units'
    begin units 'waiting for the units'
    await_units || undo "these units did not come up: $(not_ready)"
    pass units "all $(count "$work/units") units run, each in one process for $(order stable) s"
    begin health 'asking for health, versions and sessions'
    prove "$(order commit)" || undo "not right on the VPS: $(joined <"$work/wrong")"
    pass health "$(joined <"$work/right")"
    : >"$release/served"
    arm || undo 'the way back could not be scheduled'
    finish unconfirmed 0 new "release $id serves; its client has not confirmed it yet"
}

leave() {
    rm -rf "$work"
    exit 0
}

# Where a confirmation is required, the release is taken back unless that comes in time.
arm() {
    seconds=$(order confirm)
    [ -n "$seconds" ] || return 0
    watchdog=$(order watchdog)
    set -- --quiet --collect --unit="ua-deploy-confirm-$id" --on-active="$seconds" \
        --timer-property=AccuracySec=1s --property=RuntimeMaxSec=10800 --description="ua-deploy expire $id"
    # It is held off now, so whether it shall run afterwards is what it is enabled for.
    [ -z "$watchdog" ] || ! systemctl is-enabled --quiet "$watchdog" || set -- "$@" "--property=ExecStopPost=-/bin/systemctl start --no-block $watchdog"
    systemd-run "$@" /bin/sh "$release/activate" "$state" "$id" expire
}

disarm() {
    [ -z "$(order confirm)" ] || systemctl stop "ua-deploy-confirm-$id.timer" || :
}

# ---- orders, words, endings

read_orders() {
    app=$(order app) user=$(order user) group=$(order group)
    for list in unit enable template directory preserve step output health version session; do
        orders "$list" >"$work/$list" || exit 1
    done
    mv "$work/unit" "$work/units" || exit 1
}

# The first field of a key.
order() {
    awk -F '\t' -v key="$1" '$1 == key { print $2; exit }' "$release/orders"
}

# All fields of every line of a key.
orders() {
    awk -v key="$1$tab" 'index($0, key) == 1 { print substr($0, length(key) + 1) }' "$release/orders"
}

begin() {
    step=$1
    echo "== $2"
    began=$(date +%s%3N)
}

check() {
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$(($(date +%s%3N) - began))" "$(plain "$3")" >>"$release/checks"
    echo "$1 $2: $3"
}

pass() { check pass "$1" "$2"; }
warn() { check warn "$1" "$2"; }

# One line without anything that JSON or a terminal would take for more than text.
plain() {
    printf '%s' "$1" | tr '\t\n' '  ' | tr -d '\000-\037\177"\134' | cut -c 1-900
}

# Lines as a list.
joined() {
    awk 'NR > 1 { printf "; " } { printf "%s", $0 } END { print "" }'
}

# The first lines of FILE as a list.
some() {
    head -n 6 "$1" | joined
    [ "$(count "$1")" -le 6 ] || echo "and $(($(count "$1") - 6)) more"
}

count() { wc -l <"$1" | tr -d ' '; }

# Before the switch: the old release was not touched.
fail() {
    check fail "$step" "$2"
    rm -rf "$state/build/$id" "$state/incoming/$(order commit)"
    finish failed "$1" old "$2"
}

# After the switch: what was there before is put back.
undo() {
    check fail "$step" "$1"
    diagnose
    put_back "$1"
}

# VERDICT CODE WHAT-SERVES DETAIL
finish() {
    record "$@"
    # What can be lost comes after what must be known.
    case $1 in unconfirmed | rolled-back | broken) clean_up "$1" ;; esac
    rm -rf "$work"
    echo "== $1: $4"
    exit "$2"
}

record() {
    base=$(cat "$release/base.json")
    base=${base%\}}
    printf '%s,"verdict":"%s","exit_code":%s,"step":"%s","serving":"%s","detail":"%s","ended_at":"%s"}\n' \
        "$base" "$1" "$2" "$step" "$3" "$(plain "$4")" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$release/record.json.new" &&
        mv "$release/record.json.new" "$release/record.json"
    # The last line of an id counts, so that one that is cut off leaves how far it came.
    cat "$release/record.json" >>"$state/history.jsonl"
}

take_lock() {
    exec 9<>"$state/lock" || fail 1 "cannot open $state/lock"
    # Those who only look take it shared for an instant. What expires has to have its turn, however long that takes.
    if [ "$verb" = expire ]; then
        flock 9 || exit 1
    elif ! flock --wait 5 9; then
        holder=$(head -n 1 "$state/lock")
        check fail lock "held by $holder"
        [ "$verb" = forward ] || exit 30
        finish busy 30 old "held by $holder"
    fi
    printf '%s, since %s\n' "ua-deploy $verb $id by $(order who)" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$state/lock"
}

# ---- before the switch

# Every byte is what the commit has, and nothing lies beside it.
verify() {
    tree=$state/incoming/$(order commit)/tree
    if [ -L "$tree" ] || ! cd -P "$tree"; then fail 32 "the upload is gone: $tree"; fi
    find . -depth -name .rsync-partial -exec rm -rf {} +
    awk -F '\t' '$1 != "l" { print $2 "  " $3 }' "$release/manifest" >"$work/sums"
    sha256sum --check --quiet --strict "$work/sums" || fail 32 'the upload differs from the commit'
    awk -F '\t' '$1 == "l" { print $2 "\t" $3 }' "$release/manifest" >"$work/links"
    while IFS=$tab read -r target path; do
        [ "$(readlink -- "./$path")" = "$target" ] || fail 32 "the upload has another link at $path"
    done <"$work/links"
    cut -f 3 "$release/manifest" | sort >"$release/paths"
    find . ! -type d -printf '%P\n' | sort >"$work/found"
    cmp -s "$release/paths" "$work/found" || fail 32 'the upload has files that the commit does not have'
    find . -type f -perm /100 -printf '%P\n' | sort >"$work/found"
    awk -F '\t' '$1 == "x" { print $3 }' "$release/manifest" | sort | cmp -s - "$work/found" ||
        fail 32 'the upload has other programs than the commit'
    # The upload may be removed before this script ends.
    cd /
    pass transfer.verified "$(count "$release/paths") paths have the content of the commit"
    previous_manifests
}

# What earlier deploys may have put there: the manifests from the one that serves on.
previous_manifests() {
    : >"$work/previous"
    served='' doubt='' reached=''
    for marker in "$state"/releases/*/served; do
        [ ! -e "$marker" ] || served=${marker%/served}
    done
    planned=$(order after)
    now=${served##*/}
    [ -z "$planned" ] || [ "$planned" = "${now:--}" ] ||
        fail 30 "${now:-nothing} serves now, but this deploy was planned upon ${planned}"
    [ -n "$served" ] || reached=yes
    # In the order of their times, since that is what an id begins with.
    for dir in "$state"/releases/*; do
        [ "$dir" != "$served" ] || reached=yes
        if [ -n "$reached" ] && [ "$dir" != "$release" ] && [ -f "$dir/switched" ]; then
            cat "$dir/manifest" >>"$work/previous"
            [ "$dir" = "$served" ] || doubt=yes
        fi
    done
    # A later one was neither proved nor put back: what it built may lie there, so everything is built anew.
    [ -z "$doubt" ] || served=''
}

# A copy of the commit under the owner's name, at TARGET; further arguments are for rsync.
lay_out() {
    target=$1
    shift
    rsync --recursive --links --perms --owner --group --chown="$user:$group" --chmod="$(order modes)" --checksum \
        "$@" "$tree/" "$target/"
}

build() {
    built=$state/build/$id
    limit=$(($(date +%s) + $(order build_timeout)))
    rm -rf "$state"/build/*
    lay_out "$built" || fail 1 'the build directory could not be filled'
    : >"$work/fresh"
    done_steps=''
    while IFS=$tab read -r name dir digest command <&3; do
        if unchanged "$name" "$digest"; then
            echo "== build $name: its inputs are those of the release that serves"
            done_steps="$done_steps $name (unchanged)"
            continue
        fi
        echo "== build $name: $command"
        build_step "$name" "$dir" "$command" || {
            code=$?
            [ "$(date +%s)" -lt "$limit" ] || fail 1 "build step $name did not end within $(order build_timeout) s"
            fail 1 "build step $name failed with code $code"
        }
        awk -F '\t' -v name="$name" '$1 == name { print $2 }' "$work/output" >>"$work/fresh"
        done_steps="$done_steps $name"
    done 3<"$work/step"
    while IFS= read -r output; do
        made "$output" || fail 1 "the build made no $output, or put a link in its way"
    done <"$work/fresh"
    pass build "built:$done_steps"
}

# Is OUTPUT there, itself and not behind a link? What a build can write, root must not follow.
made() (
    case $1 in
        */*) inside=/${1%/*} ;;
        *) inside='' ;;
    esac
    top=$(cd -P "$built" && pwd -P) && cd -P "$built$inside" 2>/dev/null && [ "$(pwd -P)" = "$top$inside" ] || exit 1
    [ ! -L "./${1##*/}" ] && { [ -d "./${1##*/}" ] || [ -f "./${1##*/}" ]; }
)

# Did the release that serves run this step on the same inputs, and is what it made still there?
unchanged() {
    [ -n "$served" ] || return 1
    awk -F '\t' -v name="$1" -v digest="$2" '
        $1 == "step" && $2 == name && $4 == digest { same = 1 }
        END { exit !same }
    ' "$served/orders" || return 1
    awk -F '\t' -v name="$1" '$1 == name { print $2 }' "$work/output" >"$work/made"
    while IFS= read -r output; do
        [ -e "$app/$output" ] || return 1
    done <"$work/made"
}

# As the owner, where the app will lie, and never longer than is left. systemd would expand `$` itself.
build_step() {
    left=$((limit - $(date +%s)))
    [ "$left" -gt 0 ] || return 1
    systemd-run --quiet --wait --pipe --collect --unit="ua-deploy-build-$1-$id" \
        --property=BindsTo="ua-deploy-forward-$id.service" \
        --property=User="$user" --property=Group="$group" --property=NoNewPrivileges=yes \
        --property=BindPaths="$built:$app" --property=WorkingDirectory="$app/$2" \
        --property=RuntimeMaxSec="$left" --setenv=PATH="$(order build_path)" --setenv=CI=1 \
        /bin/sh -c "$(printf '%s' "$3" | sed 's/\$/$$/g')" 3<&- 9<&-
}

# What lies in the app's directory at the paths of FILE, in the form of a manifest, into OUT.
snapshot() {
    (
        cd -P "$app" || exit 1
        while IFS= read -r path; do
            if [ -L "./$path" ]; then
                printf 'l\t%s\t%s\n' "$(readlink -- "./$path")" "$path"
            elif [ -f "./$path" ]; then
                printf '%s\n' "$path" >&4
            elif [ -e "./$path" ]; then
                printf 'o\t-\t%s\n' "$path"
            else
                printf '%s\t-\t%s\n' - "$path"
            fi
        done <"$1" >"$2.rest" 4>"$2.files"
        timeout 600 xargs -r -d '\n' sha256sum --zero -- <"$2.files" | tr '\0' '\n' |
            awk '{ print "f\t" substr($0, 1, 64) "\t" substr($0, 67) }' >>"$2.rest"
        sort -t "$tab" -k 3 "$2.rest" >"$2"
        rm -f "$2.rest" "$2.files"
        [ "$(wc -l <"$1")" -eq "$(wc -l <"$2")" ]
    )
}

# Decides path by path, from what is there now.
look() {
    cut -f 3 "$release/manifest" "$work/previous" | sort -u >"$release/paths"
    stat -c '%u:%g %a' "$app" >"$release/app"
    snapshot "$release/paths" "$release/before" || fail 1 "files of $app changed while they were looked at"
    cut -f 3 "$release/manifest" | sort >"$work/placed"
    # Kept: files that the server writes, unless they are as an earlier deploy put them there.
    awk -F '\t' '
        FILENAME == ARGV[1] { known[$2, $3] = 1; next }
        FILENAME == ARGV[2] { preserve[$1] = 1; next }
        ($3 in preserve) && $1 != "-" && !(($2, $3) in known) { print $3 }
    ' "$work/previous" "$work/preserve" "$release/before" | sort >"$work/kept"
    cut -f 3 "$release/manifest" | sort | comm -23 - "$work/kept" >"$work/place"
    # Half a list would be half a switch.
    [ "$(($(count "$work/place") + $(comm -12 "$work/kept" "$work/placed" | wc -l)))" -eq "$(count "$release/manifest")" ] ||
        fail 1 'our own lists could not be written'
    # Gone: what an earlier deploy put there, this commit lacks, and nobody changed.
    : >"$work/left"
    awk -F '\t' -v left="$work/left" '
        FILENAME == ARGV[1] { known[$2, $3] = 1; next }
        FILENAME == ARGV[2] { wanted[$3] = 1; next }
        ($3 in wanted) || $1 == "-" { next }
        ($2, $3) in known { print $3; next }
        { print $3 >left }
    ' "$work/previous" "$release/manifest" "$release/before" >"$work/gone"
    # Was anything running that could serve again?
    unit_states >"$work/states.before"
    [ "$(awk -F '\t' '$2 == "active"' "$work/states.before" | wc -l)" -eq 0 ] || : >"$release/was_serving"
}

hold_watchdog() {
    watchdog=$(order watchdog)
    [ -z "$watchdog" ] || systemctl stop "$watchdog" "${watchdog%.timer}.service" || :
}

# ---- the switch

switch() {
    record activating 34 unknown 'the activation ended in the middle of the switch'
    : >"$release/switched"
    mkdir -p "$backup/tree" "$backup/outputs" "$backup/units" || undo 'the backup could not be made'
    like "$app" "$backup/tree" || undo 'the backup could not be made'
    touch "$backup/swapped" "$backup/installed" || undo 'the backup could not be made'
    awk -F '\t' '
        FILENAME == ARGV[1] { nothing[$3] = ($1 == "-"); next }
        nothing[$1]
    ' "$release/before" "$work/place" >"$backup/added" || undo 'the backup could not be made'
    while IFS= read -r output; do
        stage "$output" || undo "the built $output could not be copied to the app's file system"
    done <"$work/fresh"
    tr '\n' '\0' <"$work/place" >"$work/place0"
    lay_out "$app" --delay-updates --backup --backup-dir="$backup/tree" --files-from="$work/place0" --from0 ||
        undo 'the sources could not be put in place'
    while IFS= read -r path; do
        take_away "$path" "$backup/tree" || undo "a file of the last release could not be taken away: $path"
    done <"$work/gone"
    while IFS= read -r output; do
        swap "$output" || undo "the built $output could not be put in place"
    done <"$work/fresh"
    make_directories || undo 'a directory could not be made'
    install_templates || undo 'a unit file could not be installed'
    [ ! -s "$work/kept" ] || pass switch.kept "changed on the server, so left as it is: $(some "$work/kept")"
    [ ! -s "$work/left" ] ||
        warn switch.left "not in this commit, but changed on the server, so left there: $(some "$work/left")"
    pass switch "$(count "$work/place") paths in place, $(count "$work/gone") taken away, $(count "$backup/swapped") build outputs swapped"
}

# Steps into the directory that holds PATH below the app's, and nowhere else: no link leads root out of it.
enter() {
    case $1 in
        */*) below=/${1%/*} ;;
        *) below='' ;;
    esac
    top=$(cd -P "$app" && pwd -P) && cd -P "$app$below" 2>/dev/null && [ "$(pwd -P)" = "$top$below" ]
}

# Gives COPY the owner and mode of ORIGINAL: what is put back from a backup brings its directories along.
like() { chown --reference="$1" "$2" && chmod --reference="$1" "$2"; }

exists() { [ -e "$1" ] || [ -L "$1" ]; }

# Is PATH on the file system of the current directory, so that moving it is one rename?
here() { [ "$(stat -c %d "$1")" = "$(stat -c %d .)" ]; }

# Moves PATH of the app to the same path below DIRECTORY, with directories that are left with nothing but caches.
take_away() (
    path=$1
    # Behind a link that somebody made since, or gone: not what a deploy put there.
    enter "$path" || exit 0
    exists "./${path##*/}" || exit 0
    keep=$2
    rest=$path
    while [ "$rest" != "${rest#*/}" ]; do
        keep=$keep/${rest%%/*} rest=${rest#*/}
        [ -d "$keep" ] || { mkdir "$keep" && like "$app${keep#"$2"}" "$keep"; } || exit 1
    done
    mv -T -- "./${path##*/}" "$2/$path" || exit 1
    while [ "$path" != "${path%/*}" ] && enter "$path"; do
        [ "$(ls -A)" != __pycache__ ] || rm -rf ./__pycache__
        [ -z "$(ls -A)" ] || exit 0
        path=${path%/*}
        enter "$path" && rmdir "./${path##*/}" || exit 1
    done
)

# Where the app lies on another file system than our own directory, the slow part goes first, beside its place.
stage() (
    enter "$1" && ! here "$built/$1" || exit 0
    rm -rf "./.${1##*/}.ua-new"
    cp -a -T "$built/$1" "./.${1##*/}.ua-new"
)

# Puts what was built in its place and keeps what lay there.
swap() (
    enter "$1" || exit 1
    name=${1##*/} new=$built/$1 old=$backup/outputs/$1
    mkdir -p "${old%/*}" || exit 1
    if ! here "$new"; then
        exists "./.$name.ua-new" || stage "$1" || exit 1
        new=./.$name.ua-new
    fi
    aside=$old
    here "${old%/*}" || aside=./.$name.ua-old
    if exists "./$name"; then
        printf 'had\t%s\n' "$1" >>"$backup/swapped" || exit 1
        mv -T "./$name" "$aside" || exit 1
    else
        printf 'none\t%s\n' "$1" >>"$backup/swapped" || exit 1
    fi
    mv -T "$new" "./$name" || exit 1
    if [ "$aside" != "$old" ] && exists "$aside"; then
        cp -a -T "$aside" "$old" && rm -rf "$aside"
    fi
)

make_directories() {
    while IFS= read -r directory; do
        case $directory in
            /*) make_directory "$directory" || return 1 ;;
            *) (enter "$directory" && make_directory "./${directory##*/}") || return 1 ;;
        esac
    done <"$work/directory"
}

make_directory() {
    exists "$1" || { mkdir -m 0755 "$1" && chown -h "$user:$group" "$1"; }
}

install_templates() {
    into=$(order unit_dir)
    while IFS=$tab read -r name path; do
        if cmp -s "$tree/$path" "$into/$name"; then continue; fi
        if [ -e "$into/$name" ]; then
            cp -p "$into/$name" "$backup/units/$name" || return 1
            printf 'had\t%s\n' "$name" >>"$backup/installed" || return 1
        else
            printf 'none\t%s\n' "$name" >>"$backup/installed" || return 1
        fi
        install -m 0644 "$tree/$path" "$into/$name" || return 1
        echo "== installed $name"
    done <"$work/template"
}

# ---- restarting and proving

# Says nothing where it succeeds; the caller knows what a failure means.
restart() {
    [ ! -s "$backup/installed" ] || systemctl daemon-reload || return 1
    [ ! -s "$work/enable" ] || xargs systemctl enable --quiet <"$work/enable" || return 1
    # A unit that crashed too often is otherwise refused.
    xargs systemctl reset-failed <"$work/units" 2>/dev/null || :
    unit_states >"$work/states.restart"
    since=$(date -u +%Y-%m-%dT%H:%M:%S.%3N)
    xargs systemctl restart --no-block <"$work/units"
}

# UNIT ACTIVE SUB PID RESTARTS START of every unit
unit_states() {
    xargs systemctl show --property=Id,ActiveState,SubState,MainPID,NRestarts,ExecMainStartTimestampMonotonic \
        <"$work/units" |
        awk '
            function row() { if (id != "") print id, active, sub_state, pid, restarts, start; id = "" }
            BEGIN { OFS = "\t" }
            { at = index($0, "="); key = substr($0, 1, at - 1); value = substr($0, at + 1) }
            key == "" { row() }
            key == "Id" { id = value }
            key == "ActiveState" { active = value }
            key == "SubState" { sub_state = value }
            key == "MainPID" { pid = value }
            key == "NRestarts" { restarts = value }
            key == "ExecMainStartTimestampMonotonic" { start = value }
            END { row() }
        '
}

# Waits for all of them at once. Up is: active, started after the restart was asked for, and the same process for long
# enough; `active` between two crashes is not.
await_units() {
    end=$(($(date +%s) + $(order ready_timeout)))
    : >"$work/seen"
    told=''
    while :; do
        now=$(date +%s)
        unit_states >"$work/states"
        awk -v now="$now" -v stable="$(order stable)" '
            BEGIN { FS = OFS = "\t" }
            FILENAME == ARGV[1] { old[$1] = $6; next }
            FILENAME == ARGV[2] { key[$1] = $2; since[$1] = $3; next }
            {
                process = $4 "/" $5
                from = (key[$1] == process) ? since[$1] : now
                up = $2 == "active" && $6 + 0 > old[$1] + 0 && now - from >= stable
                print $1, process, from, up ? "up" : "waiting", $2 "/" $3, $5
            }
        ' "$work/states.restart" "$work/seen" "$work/states" >"$work/seen.new"
        mv "$work/seen.new" "$work/seen"
        waiting=$(awk -F '\t' '$4 != "up" { sub(/\.service$/, "", $1); print $1 }' "$work/seen" | joined)
        [ -n "$waiting" ] || [ ! -s "$work/seen" ] || return 0
        [ "$now" -lt "$end" ] || return 1
        [ "$waiting" = "$told" ] || echo "== waiting for $waiting"
        told=$waiting
        sleep 1
    done
}

not_ready() {
    awk -F '\t' '
        $4 != "up" { sub(/\.service$/, "", $1); print $1 " (" $5 ($6 > 0 ? ", " $6 " restarts" : "") ")" }
    ' "$work/seen" >"$work/down"
    some "$work/down"
}

# Everything that is asked must be right in one pass. COMMIT is what has to run; empty if nobody knows.
prove() {
    end=$(($(date +%s) + $(order ready_timeout)))
    while :; do
        : >"$work/right"
        : >"$work/wrong"
        prove_health
        [ -z "$1" ] || prove_versions "$1"
        prove_sessions
        [ -s "$work/wrong" ] || return 0
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 1
    done
}

right() { echo "$1" >>"$work/right"; }
wrong() { echo "$1" >>"$work/wrong"; }

# The status of URL, and its body in a file of ours.
ask() {
    : >"$work/body"
    curl --silent --max-time 5 --max-filesize 1000000 --output "$work/body" --write-out '%{http_code}' "$1" || :
}

prove_health() {
    while IFS=$tab read -r name statuses url; do
        got=$(ask "$url")
        if among "$got" "$statuses"; then
            right "$name $got"
        else
            wrong "$name answers $got at $url"
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

prove_versions() {
    while IFS=$tab read -r name field url; do
        ask "$url" >/dev/null
        got=$(sqlite3 -batch :memory: \
            "SELECT json_extract(CAST(readfile('$work/body') AS TEXT), '\$.$field')" 2>/dev/null)
        if [ "$got" = "$1" ]; then
            right "$name runs $(short "$1")"
        else
            wrong "$name runs $(short "$(plain "${got:-an unknown version}")"), not $(short "$1")"
        fi
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

# Waits for workers that are in the middle of something, since a restart would end it. A row that nobody refreshed
# lately belongs to no living worker. Where nobody can say, nobody is restarted.
drain() {
    if [ -z "$(order sessions_busy)" ] || [ ! -s "$work/session" ]; then return 0; fi
    patience=$(order drain_timeout)
    end=$(($(date +%s) + patience)) told=''
    while :; do
        sessions "'now', '-2 minutes'"
        : >"$work/busy"
        while IFS= read -r session; do
            free "$session" || echo "$session$doubt" >>"$work/busy"
        done <"$work/session"
        [ -s "$work/busy" ] || break
        busy=$(joined <"$work/busy")
        if [ "$patience" -eq 0 ]; then
            warn drain "restarted in the middle of something, as was asked: $busy"
            return 0
        fi
        [ "$(date +%s)" -lt "$end" ] || fail 31 "still busy after $patience s: $busy"
        [ "$busy" = "$told" ] || echo "== waiting for $busy"
        told=$busy
        sleep 1
    done
    pass drain 'no worker is in the middle of anything'
}

# May this worker be restarted? Not if it is busy, and not if that cannot be asked.
free() {
    doubt=''
    [ -e "$database" ] || return 0
    rows=$(query "SELECT count(*) FROM $table WHERE $column = '$1' AND $status IN ($(words sessions_busy)) $young")
    case $rows in
        0 | *'no such table'*) return 0 ;;
        '' | *[!0-9]*) doubt=" (its row could not be read: $(plain "$rows"))" ;;
    esac
    return 1
}

prove_sessions() {
    [ -s "$work/session" ] || return 0
    sessions "'$since'"
    ready=$(words sessions_ready)
    while IFS= read -r session; do
        if [ "$(query "SELECT count(*) FROM $table WHERE $column = '$session' AND $status IN ($ready) $young")" = 1 ]; then
            right "$session is ready"
        else
            row=$(query "SELECT $status${fresh:+" || ' at ' || $fresh"} FROM $table WHERE $column = '$session'")
            wrong "$session has no row that is ready and younger than the restart (${row:-none at all})"
        fi
    done <"$work/session"
}

# As the owner, so that no file of root's is left beside the database.
query() {
    timeout 10 runuser -u "$user" -- sqlite3 -readonly -batch -cmd '.timeout 3000' "$database" "$1" 2>&1 </dev/null
}

# What the failing units said last, all of them.
diagnose() {
    [ -f "$work/seen" ] || return 0
    awk -F '\t' '$4 != "up" { print $1 }' "$work/seen" >"$work/failing"
    [ -s "$work/failing" ] || cp "$work/units" "$work/failing"
    while IFS= read -r unit; do
        echo "== $unit said last:"
        journalctl --unit="$unit" --lines=12 --no-pager --output=cat || :
    done <"$work/failing"
}

# ---- the way back

put_back() {
    reason=$1
    decided=$step
    begin restore 'putting back what was there before'
    if [ "$verb" != forward ]; then
        if [ ! -f "$release/served" ] || ! newest; then
            check fail restore 'another release was put in place since'
            exit 1
        fi
    fi
    # Room first: the disk may be what was full. But somebody may be uploading the same commit again.
    [ "$verb" = expire ] || rm -rf "$state/build/$id" "$state/incoming/$(order commit)"
    record activating 34 unknown 'the activation ended while it put things back'
    files_back || give_up "not everything could be put back"
    snapshot "$release/paths" "$release/after" || give_up "what is there now could not be read"
    unlike=$(awk -F '\t' '
        FILENAME == ARGV[1] { written[$1] = 1; next }
        FILENAME == ARGV[2] { was[$3] = $1 FS $2; next }
        !($3 in written) && was[$3] != $1 FS $2 { print $3 }
    ' "$work/preserve" "$release/before" "$release/after" | head -n 5 | joined)
    [ -z "$unlike" ] || give_up "these paths are not as they were before: $unlike"
    [ -f "$release/was_serving" ] || give_up "what was there before is back, but none of its units ran before either"
    begin restore 'restarting what was there before'
    restart || give_up "what was there before is back, but could not be restarted"
    await_units || give_up "what was there before is back, but does not run: $(not_ready)"
    prove "$(order serving)" || give_up "what was there before is back, but is not right: $(joined <"$work/wrong")"
    rm -f "$release/served" "$release/switched"
    pass restore "what was there before serves again: $(joined <"$work/right")"
    step=$decided
    finish rolled-back 33 old "$reason; what was there before serves again"
}

give_up() {
    check fail restore "$1"
    rm -f "$release/served"
    step=$decided
    finish broken 34 unknown "$reason; $1"
}

# Whatever is taken away is kept with the release: the server may have written to it.
files_back() {
    [ -d "$backup/tree" ] || return 0
    away=$release/failed
    mkdir -p "$away/tree" "$away/outputs" || return 1
    while IFS= read -r path; do
        take_away "$path" "$away/tree" || return 1
    done <"$backup/added"
    rsync --archive --omit-dir-times --checksum --delay-updates "$backup/tree/" "$app/" || return 1
    while IFS=$tab read -r had output; do
        output_back "$had" "$output" || return 1
    done <"$backup/swapped"
    into=$(order unit_dir)
    while IFS=$tab read -r had name; do
        if [ "$had" = had ]; then
            install -m 0644 "$backup/units/$name" "$into/$name" || return 1
        else
            rm -f "$into/$name" || return 1
        fi
    done <"$backup/installed"
}

output_back() (
    enter "$2" || exit 1
    name=${2##*/} old=$backup/outputs/$2
    # Announced, but never moved: what lies there is the old one itself.
    if [ "$1" = had ] && ! exists "$old" && ! exists "./.$name.ua-old"; then exit 0; fi
    if exists "./$name"; then
        if here "$away"; then
            mkdir -p "$away/outputs/${2%/*}" && mv -T "./$name" "$away/outputs/$2" || exit 1
        else
            rm -rf "./$name" || exit 1
        fi
    fi
    rm -rf "./.$name.ua-new"
    [ "$1" = had ] || exit 0
    if exists "./.$name.ua-old"; then
        mv -T "./.$name.ua-old" "./$name"
    elif here "$old"; then
        mv -T "$old" "./$name"
    else
        cp -a -T "$old" "./$name"
    fi
)

# ---- after all

clean_up() {
    rm -rf "$state/build/$id" "$state/incoming/$(order commit)"
    # Where nothing is sure, everything is kept.
    [ "$1" != rolled-back ] || rm -rf "$release/failed/outputs"
    # Uploads that nobody came back for.
    find "$state/incoming" -mindepth 1 -maxdepth 1 -mtime +2 -exec rm -rf {} +
    serving=''
    for marker in "$state"/releases/*/served; do
        [ ! -e "$marker" ] || serving=${marker%/served}
    done
    find "$state/releases" -mindepth 1 -maxdepth 1 -type d | sort -r | tail -n "+$(($(order keep) + 1))" |
        while IFS= read -r old; do
            [ "$old" = "$serving" ] || [ "$old" = "$release" ] || rm -rf "$old"
        done
}

main "$@"
