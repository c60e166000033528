# shellcheck shell=sh disable=SC2030,SC2031,SC2034,SC2154
# Puts an uploaded release in place and proves that it runs, or puts back what was there before. Runs as root in a
# transient unit, from a copy that only root can write.
# usage: activate STATE ID {forward|restore|expire|recover|begun|ended}
#
# STATE/releases/ID, all of it root's own:
#   orders       KEY<TAB>FIELDS…, from the client
#   manifest     KIND<TAB>DIGEST-OR-TARGET<TAB>PATH; f file, x program, l link
#   before       the same for what lay at those paths before the switch; - nothing, d directory, o something else
#   backup/      tree/, outputs/ and units/ as they were; added, swapped and installed say what to take away
#   touched      the paths that the switch was about; states: the units before it
#   failed/      what a release that was taken back had written
#   running      UNIT<TAB>COMMITS that are the same for it, the one it was started from first; running.before
#   upon         the release that served before, if that is known
#   wrong.before KEY of what was not right before anything was changed: no reason to call the way back a failure
#   pushed       the last push before the switch: it and those before it are settled while this release serves
#   env          digests of the keys of `.env` as the units were started with them
#   deadline     when it is taken back unless it is confirmed, in seconds of the epoch
#   base.json, record.json, checks, log, step (which is under way)
#   switched     the app's directory holds something of this release; served: and it was proved to run
# STATE/pending  the IDs of releases about which something is left to do after a reboot, a line each
# STATE/reserve  room for the record of a deploy that filled the disk
# /run/ua-deploy/ID  lists of this run, gone at its end: there is room for them where the disk is full

main() {
    set -u
    umask 077
    LC_ALL=C
    export LC_ALL
    state=$1 id=$2 verb=$3
    tab=$(printf '\t')
    release=$state/releases/$id
    backup=$release/backup work=/run/ua-deploy/$id running=$release/running
    case $verb in
        begun | ended)
            note_step "$work/$verb"
            exit
            ;;
    esac
    # Nearly always there is nothing to recover, and nothing is said then.
    if [ "$verb" = recover ]; then
        cut_off || exit 0
        # A machine on its way down starts nothing any more: what needs that is recovered when it is up again.
        if touched_nothing || [ "$(systemctl is-system-running)" != stopping ]; then :; else exit 0; fi
        was=$(cat "$release/step")
    fi
    exec >>"$release/log" 2>&1 </dev/null
    [ "$verb" != forward ] || recover_others
    begin lock 'taking the lock'
    take_lock
    [ "$verb" = forward ] || rm -f "$state/reserve"
    # Only now: whoever held it may have worked on the same release.
    mkdir -p "$work" || exit 1
    read_orders || exit 1
    case $verb in
        forward) forward ;;
        restore)
            disarm
            hold_watchdog
            put_back 'the client asked for it'
            ;;
        expire) expire ;;
        recover) recover ;;
        *) fail 2 "unknown verb $verb" ;;
    esac
}

forward() {
    # If it is cut off, its record is ended, or what it changed is put back: by this unit's own end, or after a reboot.
    note_pending || fail 1 'our own marker could not be written'
    record activating 1 old 'the activation ended before the switch'
    : >"$release/checks"
    begin verify 'verifying the upload'
    verify
    begin build 'building'
    build
    begin drain 'waiting for busy workers'
    drain
    begin switch 'switching'
    access >"$work/access" &
    was_wrong &
    hold_watchdog
    look
    wait
    switch
    begin restart 'restarting'
    restart
    case $? in
        0) ;;
        3) undo "still busy after $(order drain_timeout) s: $(cut -f 3 "$work/busy" | joined)" ;;
        *) undo 'systemd would not restart the units' ;;
    esac
    begin units 'waiting for the units'
    await_units || undo "these units did not come up: $(not_ready)$(why_not_longer)"
    strangers >"$work/strangers"
    [ ! -s "$work/died" ] || undo "these units did not come up: $(died)"
    [ ! -s "$work/strangers" ] || undo "not this release: $(some "$work/strangers")"
    pass units "$(units_said)"
    [ ! -s "$work/left_over" ] || warn units.left_over "still there from before the restart: $(some "$work/left_over")"
    begin health 'asking for health, versions and sessions'
    excuse
    prove || undo "not right on the VPS: $(joined <"$work/wrong")"
    pass health "$(joined <"$work/right")"
    [ ! -s "$work/excuse" ] || warn health "as before this deploy, which did not restart it: $(joined <"$work/excuse")"
    [ ! -s "$work/other.versions" ] || warn versions "$(joined <"$work/other.versions")"
    wait
    : >"$release/served"
    arm || undo 'the way back could not be scheduled'
    finish unconfirmed 0 new "release $id serves; its client has not confirmed it yet" \
        "release $id serves; to be confirmed over a fresh connection"
}

units_said() {
    if [ -s "$work/restart" ]; then
        all=$(many "$(count "$work/unit")" unit) how="in one process of this release for $(order stable) s"
        case $(count "$work/restart") in
            1) echo "1 of $all was restarted, and runs $how" ;;
            *) echo "$(count "$work/restart") of $all were restarted, each runs $how" ;;
        esac
    else
        echo "no unit had to be restarted, every one of $(count "$work/unit") runs"
    fi
}

leave() {
    rm -rf "$work"
    exit 0
}

# Where a confirmation is required, the release is taken back unless that comes in time.
arm() {
    seconds=$(order confirm)
    [ -n "$seconds" ] || return 0
    echo "$(($(date +%s) + seconds))" >"$release/deadline" || return 1
    schedule "$seconds"
}

schedule() {
    watchdog=$(order watchdog)
    set -- --quiet --collect --unit="ua-deploy-confirm-$id" --on-active="$1" \
        --timer-property=AccuracySec=1s --property=RuntimeMaxSec=10800 --property=TimeoutStopSec=10800 \
        --property=ExecStopPost="/bin/sh $release/activate $state $id recover" --description="ua-deploy expire $id"
    # It is held off now, so whether it shall run afterwards is what it is enabled for.
    [ -z "$watchdog" ] || ! systemctl is-enabled --quiet "$watchdog" || set -- "$@" "--property=ExecStopPost=-/bin/systemctl start --no-block $watchdog"
    systemd-run "$@" /bin/sh "$release/activate" "$state" "$id" expire
}

disarm() {
    [ -z "$(order confirm)" ] || systemctl stop "ua-deploy-confirm-$id.timer" || :
}

expire() {
    # Confirmed in the last moment, or overtaken: nothing is to be taken back.
    recorded unconfirmed || leave
    if [ ! -f "$release/served" ] || ! newest; then leave; fi
    begin confirm 'taking back what nobody confirmed'
    hold_watchdog
    put_back "nobody confirmed it within $(order confirm) s"
}

# ---- after a kill or a reboot

# Whatever an earlier one was cut off from comes first; this one's plan is void then.
recover_others() {
    [ -f "$state/pending" ] || return 0
    while IFS= read -r other; do
        [ "$other" = "$id" ] || /bin/sh "$state/releases/$other/activate" "$state" "$other" recover
    done <"$state/pending"
}

recorded() {
    case $(cat "$release/record.json") in
        *"\"verdict\":\"$1\""*) return 0 ;;
    esac
    return 1
}

# Was the activation of this release ended from outside, or its deadline forgotten?
cut_off() {
    recorded activating || { recorded unconfirmed && [ -f "$release/deadline" ] && ! armed; }
}

# Was it cut off before the switch?
touched_nothing() {
    case $(cat "$release/record.json") in
        *'"verdict":"activating","exit_code":1,'*) return 0 ;;
    esac
    return 1
}

armed() {
    for kind in timer service; do
        case $(systemctl show --property=ActiveState --value "ua-deploy-confirm-$id.$kind") in
            active | activating | deactivating) return 0 ;;
        esac
    done
    return 1
}

recover() {
    if recorded unconfirmed; then
        left=$(($(cat "$release/deadline") - $(date +%s)))
        [ "$left" -gt 0 ] || expire
        echo "== after a reboot it is still to be confirmed within $left s"
        schedule "$left"
        leave
    fi
    if ! recorded activating; then leave; fi
    begin "${was:-recover}" 'the activation was cut off'
    ! touched_nothing || fail 1 'the activation was cut off before the switch'
    newest || finish broken 34 unknown 'the activation was cut off, and another release was put in place since'
    check fail "$step" 'the activation was cut off'
    hold_watchdog
    put_back 'the activation was cut off'
}

# ---- words and endings

begin() {
    step=$1
    echo "$step" >"$release/step"
    echo "== $2"
    began=$(date +%s%3N)
}

check() {
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$(($(date +%s%3N) - began))" "$(plain "$3")" >>"$release/checks"
    # `echo` would give a backslash of a path or a command a meaning.
    printf '%s %s: %s\n' "$1" "$2" "$3"
}

pass() { check pass "$1" "$2"; }
warn() { check warn "$1" "$2"; }

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
    unstage
    finish failed "$1" old "$2"
}

# After the switch: what was there before is put back.
undo() {
    check fail "$step" "$1"
    diagnose
    put_back "$1"
}

# VERDICT CODE WHAT-SERVES DETAIL [TITLE]
finish() {
    record "$@"
    # What can be lost comes after what must be known.
    case $1 in unconfirmed | rolled-back | broken) clean_up "$1" ;; esac
    if [ "$1" != unconfirmed ] || [ ! -f "$release/deadline" ]; then forget_pending; fi
    if [ "$verb" = recover ] && [ -n "$(order watchdog)" ] && systemctl is-enabled --quiet "$(order watchdog)"; then
        systemctl start --no-block "$(order watchdog)"
    fi
    rm -rf "$work"
    printf '== %s\n' "${5:-$1: $4}"
    exit "$2"
}

record() {
    base=$(cat "$release/base.json")
    line=$(printf '%s,"verdict":"%s","exit_code":%s,"step":"%s","serving":"%s","detail":"%s","ended_at":"%s","seconds":%s}' \
        "${base%\}}" "$1" "$2" "$step" "$3" "$(plain "$4")" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        "$(($(date +%s) - $(stat -c %Y "$release/base.json")))")
    write_record "$line" || { rm -f "$state/reserve" && write_record "$line"; }
}

take_lock() {
    exec 9<>"$state/lock" || fail 1 "cannot open $state/lock"
    # Those who only look take it shared for an instant. What has to be put back
    # has its turn, however long that takes.
    if [ "$verb" = expire ] || [ "$verb" = recover ]; then
        flock 9 || exit 1
    elif ! flock --wait 5 9; then
        holder=$(head -n 1 "$state/lock")
        check fail lock "held by $holder"
        [ "$verb" = forward ] || exit 30
        finish busy 30 old "held by $holder"
    fi
    from=$(sed -n 's/.*"whois":"\([^"]\{1,\}\)".*/ from \1/p' "$release/base.json")
    printf '%s, since %s\n' "ua-deploy $verb $id by $(order who)$from" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$state/lock"
}

# ---- before the switch

# Every byte of what was sent is what the commit has, and nothing lies beside it.
verify() {
    tree=$state/incoming/$(order commit)/tree
    if [ -L "$tree" ] || ! cd -P "$tree"; then fail 32 "the upload is gone: $tree"; fi
    find . -depth -name .rsync-partial -exec rm -rf {} +
    sort "$work/upload" >"$work/sent"
    cut -f 3 "$release/manifest" | sort >"$release/paths"
    awk -F '\t' 'FILENAME == ARGV[1] { sent[$1]; next } $3 in sent' "$work/sent" "$release/manifest" | sort >"$work/wanted"
    find . ! -type d -printf '%P\n' | sort | cmp -s "$work/sent" - ||
        fail 32 'the upload has other files than it should have'
    lying "$(cat "$work/sent")" | sort | cmp -s "$work/wanted" - || fail 32 'the upload differs from the commit'
    [ "$(count "$work/wanted")" -eq "$(count "$work/sent")" ] || fail 32 'the upload has files that the commit does not have'
    # The upload may be removed before this script ends.
    cd /
    case $(count "$work/sent") in
        1) said='was sent, and has' ;;
        *) said='were sent, and have' ;;
    esac
    pass transfer.verified "$(count "$work/sent") of $(many "$(count "$release/paths")" path) $said the content of the commit"
    previous_manifests
}

# What earlier deploys may have put there: the manifests from the one that serves on.
previous_manifests() {
    : >"$work/previous"
    served='' newest='' doubt='' reached=''
    for dir in "$state"/releases/*; do
        [ ! -e "$dir/served" ] || served=$dir
        [ ! -e "$dir/switched" ] || newest=$dir
    done
    planned=$(order after)
    now=${served##*/} now=${now:--}:${newest##*/}
    [ -z "$planned" ] || [ "$planned" = "$now" ] ||
        fail 30 "${now%%:*} serves now and ${now##*:} was put in place last, but this deploy was planned upon $planned"
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
    printf '%s\n' "${served##*/}" >"$release/upon"
    # Nor was a push, which went the same way as a deploy.
    last=$(last_push)
    [ "$last" = "$(order pushed)" ] ||
        fail 30 "push ${last:-that was planned upon is gone} came after this deploy was planned"
    open_pushes | pushed_paths >>"$work/previous"
    printf '%s\n' "$last" >"$release/pushed"
    if [ -n "$served" ] && [ -f "$served/running" ]; then
        cp "$served/running" "$release/running.before"
    else
        : >"$release/running.before"
    fi
}

# Paths for --files-from, which takes one that begins with `#` or `;` for a comment even between NULs. With `./` before
# it the top directory is sent along, and its mode set.
for_rsync() { sed 's,^[#;],./&,' | tr '\n' '\0'; }

# What lies below FROM under the owner's name at TARGET; further arguments are for rsync.
lay_out() {
    from=$1 target=$2
    shift 2
    rsync --recursive --links --perms --owner --group --chown="$user:$group" --chmod="$(order modes)" --checksum \
        "$@" "$from/" "$target/"
}

build() {
    built=$state/build/$id
    rm -rf "$state"/build/*
    : >"$work/fresh"
    done_steps=''
    if [ -s "$work/make" ]; then fill_build; fi
    while IFS=$tab read -r name dir digest limit origin command <&3; do
        if ! grep -qxF -- "$name" "$work/make"; then
            unchanged "$name" "$digest" || fail 30 "build step $name has to run, which was not so when this deploy was planned"
            echo "== build $name: its inputs are those of the release that serves"
            done_steps="$done_steps $name (unchanged)"
            continue
        fi
        printf '== build %s: %s\n' "$name" "$command"
        build_step "$name" "$dir" "$limit" "$command" || fail 1 "build step $name $(step_failure $? "$limit" "$origin")"
        awk -F '\t' -v name="$name" '$1 == name { print $2 }' "$work/output" >>"$work/fresh"
        done_steps="$done_steps $name"
    done 3<"$work/step"
    while IFS= read -r output; do
        made "$output" || fail 1 "the build made no $output, or put a link in its way"
    done <"$work/fresh"
    while IFS= read -r output; do
        stage "$output" || fail 1 "the built $output could not be copied to the app's file system"
    done <"$work/fresh"
    [ -z "$done_steps" ] || pass build "built:$done_steps"
}

# The whole commit: what was sent, and what is the same in the app. Nobody else can reach it until every byte was
# compared.
fill_build() {
    comm -23 "$release/paths" "$work/sent" | for_rsync >"$work/same0"
    no_room='the build directory could not be filled'
    mkdir "$built" || fail 1 "$no_room"
    [ ! -s "$work/same0" ] || lay_out "$app" "$built" --files-from="$work/same0" --from0 || fail 1 "$no_room"
    lay_out "$tree" "$built" || fail 1 "$no_room"
    (cd -P "$built" && lying "$(cat "$release/paths")") | sort >"$work/filled"
    sort "$release/manifest" | cmp -s - "$work/filled" || fail 30 "files of $app changed since this deploy was planned"
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

# Runs COMMAND in DIRECTORY as the owner, where the app will lie, for at most LIMIT seconds. systemd would expand `$` itself.
build_step() {
    rm -f "$work/begun" "$work/ended"
    systemd-run --quiet --wait --pipe --collect --unit="ua-deploy-build-$1-$id" \
        --property=BindsTo="ua-deploy-forward-$id.service" \
        --property=User="$user" --property=Group="$group" --property=NoNewPrivileges=yes \
        --property=BindPaths="$built:$app" --property=WorkingDirectory="$app/$2" \
        --property=RuntimeMaxSec="$3" --property=MemoryAccounting=yes \
        --property=ExecStartPre="-+/bin/sh $release/activate $state $id begun" \
        --property=ExecStopPost="-+/bin/sh $release/activate $state $id ended" \
        --setenv=PATH="$(order build_path)" --setenv=CI=1 \
        /bin/sh -c "$(printf '%s' "$4" | sed 's/\$/$$/g')" 3<&- 9<&-
}

# Notes in FILE what systemd and the kernel tell of a build step. systemd calls this in the step's control group, which it
# takes away right afterwards. Only a counter of the group tells whether the kernel killed a process of the step for memory,
# and maybe not the first one.
note_step() {
    group=$(sed -n 's/^0::\(.*\)/\1/p' /proc/self/cgroup) old=$(sed -n 's/^[0-9]*:memory:\(.*\)/\1/p' /proc/self/cgroup)
    # Unified, or with a hierarchy of its own for memory, where the group may be the whole machine's.
    if [ -z "$old" ]; then
        files=/sys/fs/cgroup$group events=memory.events peak=memory.peak max=memory.max
    else
        group=$old files=/sys/fs/cgroup/memory$old
        events=memory.oom_control peak=memory.max_usage_in_bytes max=memory.limit_in_bytes
    fi
    {
        printf 'result\t%s\nstatus\t%s\n' "${SERVICE_RESULT-}" "${EXIT_STATUS-}"
        awk '$1 == "oom_kill" { print "kills\t" $2 }' "$files/$events"
        printf 'limit\t%s\n' "$(cat "$files/$max")"
        case $group in
            */ua-deploy-build-*) printf 'peak\t%s\n' "$(cat "$files/$peak")" ;;
        esac
    } >"$1.new" 2>/dev/null
    mv "$1.new" "$1"
}

# Says how the last build step failed: CODE of systemd-run, its LIMIT and the ORIGIN of that.
step_failure() {
    touch "$work/begun" "$work/ended"
    awk -F '\t' -v code="$1" -v within="$2" -v origin="$3" -v machine="$(awk '$1 == "MemTotal:" { print $2 * 1024 }' /proc/meminfo)" '
        function size(bytes) {
            return bytes >= 1073741824 ? sprintf("%.1f GiB", bytes / 1073741824) : sprintf("%.0f MiB", bytes / 1048576)
        }
        function memory(   said) {
            if (is["peak"] + 0 > 0) said = "its peak was " size(is["peak"]) ", "
            if (is["limit"] + 0 > 0 && is["limit"] + 0 < machine + 0) said = said "its limit is " size(is["limit"]) ", "
            return said "the machine has " size(machine)
        }
        FILENAME == ARGV[1] { was[$1] = $2; next }
        { is[$1] = $2 }
        END {
            if (is["kills"] + 0 > was["kills"] + 0 || is["result"] == "oom-kill") print "was killed for memory (oom-kill): " memory()
            else if (is["result"] == "timeout") print "did not end within " within " s (" origin ")"
            else if (is["result"] == "signal" || is["result"] == "core-dump") print "was ended by signal " is["status"] ": " memory()
            # What a shell says of a program that was killed, or aborted: V8 does so where its own limit is reached.
            else if (code == 137 || code == 134) print "failed with code " code ": " memory()
            else print "failed with code " code
        }
    ' "$work/begun" "$work/ended"
}

# What lies in the app's directory at the paths of this release, in the form of a manifest, into OUT.
snapshot() {
    (cd -P "$app" && lying "$(cat "$release/paths")") | sort -t "$tab" -k 3 >"$1"
    [ "$(count "$release/paths")" -eq "$(count "$1")" ]
}

# What is not right before anything is changed, as the release before was told to prove it.
was_wrong() (
    lists=$work running=$release/running.before
    old=$state/releases/$(cat "$release/upon")/orders
    [ ! -f "$old" ] || ordered=$old
    work=$lists/before
    mkdir -p "$work" && read_orders || exit 1
    # Every row may be of any process.
    : >"$work/restart"
    prove_once
    cut -f 1 "$work/found" >"$release/wrong.before"
)

# What was wrong before and belongs to a unit that is not restarted is not this release's fault.
excuse() {
    : >"$work/excused"
    [ -s "$release/wrong.before" ] || return 0
    prove_once || :
    awk -F '\t' '
        FILENAME == ARGV[1] { before[$1] = 1; next }
        FILENAME == ARGV[2] { restarted[$1] = 1; next }
        ($1 in before) && $3 != "-" && !($3 in restarted) { print $1 }
    ' "$release/wrong.before" "$work/restart" "$work/found" >"$work/excused.new"
    mv "$work/excused.new" "$work/excused"
}

# Decides path by path, from what is there now.
look() {
    cut -f 3 "$release/manifest" "$work/previous" | sort -u >"$release/paths"
    stat -c '%u:%g %a' "$app" >"$release/app"
    snapshot "$release/before" || fail 1 "files of $app changed while they were looked at"
    cut -f 3 "$release/manifest" | sort >"$work/placed"
    # What the plan did not see coming: what was changed since, and what is not sent though it is not as in the commit.
    orders drift >"$work/drift"
    [ -z "$served" ] || cat "$served/orders" >"$work/before.orders"
    touch "$work/before.orders"
    awk -F '\t' -v served="$served" '
        FILENAME == ARGV[1] || FILENAME == ARGV[2] { if ($1 == "preserve") preserve[$2] = 1; next }
        FILENAME == ARGV[3] { seen[$0] = 1; next }
        FILENAME == ARGV[4] { sent[$0] = 1; next }
        FILENAME == ARGV[5] { put[$3] = $1 FS $2; next }
        FILENAME == ARGV[6] { old[$3] = $1 FS $2; next }
        ($3 in preserve) && $1 != "-" { next }
        ($3 in put) && !($3 in sent) && put[$3] != $1 FS $2 { print $3; next }
        served != "" && ($3 in old) && !($3 in seen) && old[$3] != $1 FS $2 { print $3 }
    ' "$release/orders" "$work/before.orders" "$work/drift" "$work/sent" "$release/manifest" \
        "${served:-$release}/manifest" "$release/before" >"$work/moved"
    [ ! -s "$work/moved" ] || fail 30 "changed on the VPS since this deploy was planned: $(some "$work/moved")"
    # Kept: files that the server writes, unless they are as an earlier deploy put them there.
    awk -F '\t' '
        FILENAME == ARGV[1] { known[$2, $3] = 1; next }
        FILENAME == ARGV[2] { preserve[$1] = 1; next }
        ($3 in preserve) && $1 != "-" && !(($2, $3) in known) { print $3 }
    ' "$work/previous" "$work/preserve" "$release/before" | sort | comm -12 - "$work/placed" >"$work/kept"
    comm -23 "$work/sent" "$work/kept" >"$work/place"
    # Half a list would be half a switch.
    [ "$(($(count "$work/place") + $(comm -12 "$work/kept" "$work/sent" | wc -l)))" -eq "$(count "$work/upload")" ] ||
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
    cut -d ' ' -f 1 /proc/uptime >"$release/up"
    unit_states >"$release/states"
    [ "$(awk -F '\t' '$2 == "active"' "$release/states" | wc -l)" -eq 0 ] || : >"$release/was_serving"
    awk -F '\t' 'FILENAME == ARGV[1] { restarted[$1] = 1; next } !($1 in restarted) && $2 != "active" { print $1 " is " $2 }' \
        "$work/restart" "$release/states" >"$work/down"
    # An optional unit that did not run takes no part. One that somebody started since would go on with the old release.
    while IFS= read -r unit; do
        [ "$(systemctl show --property=ActiveState --value "$unit")" != active ] || echo "$unit is active" >>"$work/down"
    done <"$work/idle"
    [ ! -s "$work/down" ] || fail 30 "not so when this deploy was planned: $(some "$work/down")"
    # Who is not restarted goes on with the values it was started with.
    env_values
    if [ "$(count "$work/restart")" -lt "$(count "$work/unit")" ] && [ -n "$served" ] && [ -f "$served/env" ]; then
        # Comments do not count, and an older release noted the whole of the file, too.
        grep -v '^=' "$served/env" | cmp -s - "$work/env" ||
            fail 30 "values of ${env_command:+\`env.command\` or }$env changed since this deploy was planned"
    fi
}

# Digests of the values that units are started with from now on. Units that need what the command gives would not come up
# where it fails.
env_values() {
    env=$app/$(order env_file) env_command=$(order env_command) build_path=$(order build_path)
    ask_env_command
    [ -z "$env_failed" ] || fail 31 "\`env.command\` failed (code ${env_failed%%"$tab"*}): ${env_failed#*"$tab"}"
    env_text | env_digests >"$work/env"
}

hold_watchdog() {
    watchdog=$(order watchdog)
    [ -z "$watchdog" ] || systemctl stop "$watchdog" "${watchdog%.timer}.service" || :
}

# ---- the switch

switch() {
    record activating 34 unknown 'the activation ended in the middle of the switch' ||
        undo 'our own record could not be written'
    sort -u "$work/place" "$work/gone" >"$release/touched" || undo 'our own lists could not be written'
    : >"$release/switched"
    # Power may fail as well.
    sync -f "$state" || undo 'our own lists could not be written'
    mkdir -p "$backup/tree" "$backup/outputs" "$backup/units" "$backup/temp" || undo 'the backup could not be made'
    like "$app" "$backup/tree" || undo 'the backup could not be made'
    touch "$backup/added" "$backup/swapped" "$backup/installed" || undo 'the backup could not be made'
    awk -F '\t' '
        # Behind a link or a file that is taken away there is nothing either.
        function vacated(path) {
            while (sub(/\/[^\/]*$/, "", path)) if (path in gone) return 1
            return 0
        }
        FILENAME == ARGV[1] { gone[$0] = 1; next }
        FILENAME == ARGV[2] { nothing[$3] = ($1 == "-" || $1 == "d" || ($1 == "o" && vacated($3))); next }
        nothing[$1]
    ' "$work/gone" "$release/before" "$work/place" >"$backup/added.new" || undo 'the backup could not be made'
    mv "$backup/added.new" "$backup/added" || undo 'the backup could not be made'
    # First, since a directory may have become a file, or a file a directory.
    while IFS= read -r path; do
        take_away "$path" "$backup/tree" || undo "a file of the last release could not be taken away: $path"
    done <"$work/gone"
    for_rsync <"$work/place" >"$work/place0"
    if [ -s "$work/place0" ]; then
        lay_out "$tree" "$app" --delay-updates --temp-dir="$backup/temp" --backup --backup-dir="$backup/tree" \
            --files-from="$work/place0" --from0 ||
            undo 'the sources could not be put in place'
        IFS=' ' read -r owner mode <"$release/app"
        chown "$owner" "$app" || undo "the owner of $app could not be kept"
        chmod "$mode" "$app" || undo "the mode of $app could not be kept"
        awk -F '\t' 'FILENAME == ARGV[1] { place[$1] = 1; next } $3 in place' "$work/place" "$release/manifest" |
            sort >"$work/wanted"
        (cd -P "$app" && lying "$(cat "$work/place")") | sort | cmp -s "$work/wanted" - ||
            undo 'not every source is in place as it was sent'
    fi
    while IFS= read -r output; do
        swap "$output" || undo "the built $output could not be put in place"
    done <"$work/fresh"
    make_directories || undo 'a directory could not be made'
    install_templates || undo 'a unit file could not be installed'
    # It has time until the units are proved.
    sync -f "$app" &
    [ ! -s "$work/kept" ] || pass switch.kept "changed on the server, so left as it is: $(some "$work/kept")"
    [ ! -s "$work/left" ] ||
        warn switch.left "not in this commit, but changed on the server, so left there: $(some "$work/left")"
    pass switch "$(many "$(count "$work/place")" path) in place, $(count "$work/gone") taken away, $(many "$(count "$backup/swapped")" 'build output') swapped"
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
        # What lies aside is whole until it goes by another name, and then the copy is.
        rm -rf "$old" "./.$name.ua-trash" && cp -a -T "$aside" "$old" && mv -T "$aside" "./.$name.ua-trash" &&
            rm -rf "./.$name.ua-trash"
    fi
)

# What lies beside the outputs where the app is on another file system.
unstage() {
    cut -f 2 "$work/output" >"$work/staged"
    while IFS= read -r output; do
        (enter "$output" && rm -rf "./.${output##*/}.ua-new" "./.${output##*/}.ua-trash")
    done <"$work/staged"
}

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
        # Sent only if it differs. The copy in the app is not for root to take.
        if [ ! -f "$tree/$path" ] || cmp -s "$tree/$path" "$into/$name"; then continue; fi
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

# Says nothing where it succeeds; the caller knows what a failure means: 1 of systemd, 3 of workers that stay busy.
restart() {
    [ ! -s "$backup/installed" ] || systemctl daemon-reload || return 1
    [ "$(xargs -r systemctl is-enabled <"$work/enable" 2>/dev/null | grep -cx enabled)" -eq "$(count "$work/enable")" ] ||
        xargs systemctl enable --quiet <"$work/enable" || return 1
    note_what_runs || return 1
    unit_states >"$work/states.restart"
    up=$(cut -d ' ' -f 1 /proc/uptime)
    [ -s "$work/restart" ] || return 0
    workers
    : >"$work/owners"
    [ ! -s "$work/session" ] || [ ! -e "$database" ] || query "$session_rows" >"$work/owners" || : >"$work/owners"
    # What is in the files that they write to is of the processes before.
    while IFS= read -r unit; do
        unit_log_files "$unit"
    done <"$work/restart" | sort -u | while IFS= read -r file; do
        size=$(stat -c %s -- "$file" 2>/dev/null) && printf '%s\t%s\n' "$size" "$file"
    done >"$work/written"
    # A unit that crashed too often is otherwise refused.
    xargs systemctl reset-failed <"$work/restart" 2>/dev/null || :
    # Workers come last: one of them may have begun a mission meanwhile.
    cut -f 2 "$work/session" >"$work/worker"
    grep -vxF -f "$work/worker" "$work/restart" >"$work/at_once" || :
    grep -xF -f "$work/worker" "$work/restart" >"$work/in_turn" || :
    [ ! -s "$work/at_once" ] || xargs systemctl restart --no-block <"$work/at_once" || return 1
    restart_workers
}

# Restarts each worker once it has no mission. Until its process is gone it cannot claim one.
restart_workers() {
    [ -s "$work/in_turn" ] || return 0
    # What this deploy was told, also on the way back: the one before may have been forced.
    patience=$(ordered=$release/orders && order drain_timeout)
    end=$(($(uptime_s) + ${patience:-0})) told=''
    while :; do
        if [ "${patience:-0}" -eq 0 ]; then
            : >"$work/busy"
        else
            find_busy "$work/in_turn" hold_claims
        fi
        if [ -s "$work/busy" ] && [ "$(uptime_s)" -ge "$end" ]; then
            let_go
            busy=$(cut -f 3 "$work/busy" | joined)
            if [ "$step" != restore ]; then
                # They go on with what they were started with.
                grep -vxF -f "$work/in_turn" "$work/restart" >"$work/restart.new"
                mv "$work/restart.new" "$work/restart"
                return 3
            fi
            warn drain "restarted in the middle of something, after $patience s: $busy"
            : >"$work/busy"
        fi
        cut -f 2 "$work/busy" >"$work/keep"
        grep -vxF -f "$work/keep" "$work/in_turn" >"$work/free" || :
        if [ -s "$work/free" ]; then
            xargs systemctl restart --no-block <"$work/free" || { let_go && return 1; }
            gone "$work/free"
        fi
        let_go
        mv "$work/keep" "$work/in_turn"
        [ -s "$work/in_turn" ] || return 0
        busy=$(cut -f 3 "$work/busy" | joined)
        [ "$busy" = "$told" ] || echo "== waiting for $busy"
        told=$busy
        sleep 0.5
    done
}

# Waits until the processes that the units in FILE had before their restart are gone, but no longer than 3 s: one that is
# on its way out may want to write as well.
gone() {
    awk -F '\t' 'FILENAME == ARGV[1] { unit[$1] = 1; next } ($1 in unit) && $4 > 0 { print $4 }' \
        "$1" "$work/states.restart" >"$work/leaving"
    tries=30
    while [ "$tries" -gt 0 ]; do
        here=''
        while IFS= read -r pid; do [ ! -e "/proc/$pid" ] || here=yes; done <"$work/leaving"
        [ -n "$here" ] || return 0
        tries=$((tries - 1))
        sleep 0.1
    done
}

# Seconds since the machine was started, by which waits are measured: the time of day may be set meanwhile.
uptime_s() { cut -d . -f 1 /proc/uptime; }

# What each unit may say it runs from now on, and with which `.env`.
note_what_runs() {
    [ "$step" = restart ] || return 0
    cp "$work/env" "$release/env" || return 1
    awk -F '\t' -v commit="$(order commit)" '
        FILENAME == ARGV[1] { restarted[$1] = 1; next }
        FILENAME == ARGV[2] { before[$1] = $2; next }
        { print $1 "\t" (($1 in restarted) || !($1 in before) ? commit : before[$1] "," commit) }
    ' "$work/restart" "$release/running.before" "$work/unit" >"$release/running"
}

# Waits for all of them at once. Up is: active, started after the restart was asked for, and the same process for long
# enough; `active` between two crashes is not. A unit that was not restarted just has to go on.
#
# Each has `start_within`, which does not run while systemd stops it or carries out its start: for that the unit has limits
# of its own. On the way forth nobody waits for a unit that will not come up: production may be down meanwhile. On the way
# back there is nothing better to go to.
await_units() {
    begun=$(uptime_ms)
    : >"$work/seen"
    : >"$work/hopeless"
    : >"$work/died"
    touch "$work/shaky"
    told=''
    while :; do
        now=$(uptime_ms)
        unit_states >"$work/states"
        # Restarts count from the first process that is newer than ours, or from 0 where systemd began to count anew.
        awk -v now="$now" -v begun="$begun" -v stable="$(order stable)" -v within="$(allowed)" '
            BEGIN { FS = OFS = "\t" }
            FILENAME == ARGV[1] { restarted[$1] = 1; next }
            FILENAME == ARGV[2] { old[$1] = $6; process[$1] = $4 "/" $5; next }
            FILENAME == ARGV[3] { shaky[$1] = 1; next }
            FILENAME == ARGV[4] { key[$1] = $2; since[$1] = $3; base[$1] = $7; clock[$1] = $10; next }
            {
                this = $4 "/" $5
                from = (key[$1] == this) ? since[$1] : now
                newer = $6 + 0 > old[$1] + 0
                alive = $2 == "active" && (!($1 in restarted) || newer)
                up = alive && (($1 in restarted) ? now - from >= stable * 1000 : process[$1] == this) || ($1 in shaky)
                if (!($1 in base) || base[$1] == "-" || $5 + 0 < base[$1] + 0) base[$1] = newer ? $5 + 0 : "-"
                if (!($1 in clock)) clock[$1] = begun
                if ($2 == "deactivating" || ($2 == "activating" && $3 ~ /^start/)) clock[$1] = now
                late = !up && now - clock[$1] >= within * 1000 && !(alive && ($1 in restarted))
                # The restart is a job until it succeeds or fails, and one that systemd tries again is `activating`.
                over = ($2 == "failed" || $2 == "inactive") && !$8
                print $1, this, from, up ? "up" : late ? "late" : "waiting", $2 "/" $3, $5, base[$1], \
                    base[$1] == "-" ? 0 : $5 - base[$1], !over ? "" : $7 == "" || $7 == "success" ? $2 : $7, clock[$1]
            }
        ' "$work/restart" "$work/states.restart" "$work/shaky" "$work/seen" "$work/states" >"$work/seen.new"
        mv "$work/seen.new" "$work/seen"
        [ "$step" != units ] || hopeless $((now - begun)) >"$work/hopeless"
        waiting=$(awk -F '\t' '$4 != "up" { sub(/\.service$/, "", $1); print $1 }' "$work/seen" | joined)
        [ -n "$waiting" ] || [ ! -s "$work/seen" ] || return 0
        [ ! -s "$work/hopeless" ] && [ -s "$work/seen" ] && ! grep -q "${tab}late$tab" "$work/seen" || return 1
        [ "$waiting" = "$told" ] || echo "== waiting for $waiting"
        told=$waiting
        sleep 0.1
    done
}

# Not by awk: mawk's %d ends at 2147483647, which is 24 days.
uptime_ms() {
    read -r up_s _ </proc/uptime
    echo "$((${up_s%.*} * 1000 + 1${up_s#*.} * 10 - 1000))"
}

# Seconds that a unit may take to come up, also where the orders are those of an older release.
allowed() {
    seconds=$(order start_within)
    [ -n "$seconds" ] || seconds=$(order ready_timeout)
    echo "${seconds:-60}"
}

# Units that will not come up, so many MILLISECONDS after their restart: systemd gave them up, or starts them again and again.
# One that has to try a few times, since another one is not up yet, gets as long for it as a good one has to prove itself.
hopeless() {
    awk -F '\t' -v spent="$1" -v stable="$(order stable)" '
        { name = $1; sub(/\.service$/, "", name) }
        $9 != "" { print name " (systemd gave it up: " $9 ")"; next }
        $8 >= 5 && $5 !~ /^active/ && spent >= stable * 1000 {
            print name " (systemd started it again " $8 " times in " int((spent + 999) / 1000) " s)"
        }
    ' "$work/seen"
}

why_not_longer() {
    [ ! -s "$work/hopeless" ] || echo "; nobody waits any longer for $(some "$work/hopeless")"
}

not_ready() {
    failing | awk -F '\t' '
        FILENAME == ARGV[1] { failing[$1] = 1; next }
        $1 in failing {
            sub(/\.service$/, "", $1)
            print $1 " (" $5 ($6 > 0 ? ", " $6 ($6 == 1 ? " restart" : " restarts") : "") ")"
        }
    ' - "$work/seen" >"$work/down"
    some "$work/down"
}

# Units that are the reason why nobody waits any longer: what would have had time left is not blamed.
failing() {
    awk -F '\t' '
        $4 == "up" { next }
        $4 == "late" || $9 != "" || $8 > 0 { list = list $1 "\n" }
        { all = all $1 "\n" }
        END { printf "%s", list == "" ? all : list }
    ' "$work/seen"
}

# Names every unit that was restarted and does not run this release: its main process is older than the restart, has nothing
# to do with the app's directory as it lies there now (neither its working directory, nor its program, nor what it was told
# to run), or one of its processes has something open that was taken away. A process that outlived the restart beside the
# main one goes to $work/left_over, a unit whose main process ends meanwhile to $work/died.
strangers() {
    ticks=$(getconf CLK_TCK)
    : >"$work/left_over"
    : >"$work/open"
    awk -F '\t' 'FILENAME == ARGV[1] { restarted[$1] = 1; next } ($1 in restarted) && $4 > 0 { print $1 "\t" $4 "\t" $9 }' \
        "$work/restart" "$work/states" >"$work/main"
    while IFS=$tab read -r unit pid group; do
        foreign=''
        newer "$pid" || foreign="process $pid is older than the restart"
        {
            readlink "/proc/$pid/cwd"
            readlink "/proc/$pid/exe"
            tr '\0' '\n' <"/proc/$pid/cmdline"
        } 2>/dev/null | awk -v app="$app/" '
            index($0 "/", app) == 1 && !/ \(deleted\)$/ { ours = 1 }
            END { exit !ours }
        ' || foreign="process $pid runs in $(plain "$(readlink "/proc/$pid/cwd")")"
        if ! readlink "/proc/$pid/exe" >/dev/null 2>&1; then
            printf '%s\t%s (process %s ended again)\n' "$unit" "${unit%.service}" "$pid" >>"$work/died"
        elif [ -n "$foreign" ]; then
            echo "$unit ($foreign)"
        fi
        processes "$pid" "$group" | while IFS= read -r process; do
            if [ "$process" = "$pid" ] || newer "$process"; then
                opened "$process" | sort -u | sed "s/^/$unit$tab$process$tab/"
            elif [ -e "/proc/$process" ]; then
                echo "$unit (process $process)" >>"$work/left_over"
            fi
        done >>"$work/open"
    done <"$work/main"
    cut -f 2 "$work/output" >"$work/outputs"
    awk -F '\t' -v app="$app/" -v state="$state/" '
        FILENAME == ARGV[1] { path[$0] = 1; next }
        FILENAME == ARGV[2] { output[$0] = 1; next }
        # Is PATH below the app part of what a release puts there? What the app writes may come and go.
        function of_release(rest,   above) {
            if (rest in path) return 1
            above = rest
            while (1) {
                if (above in output) return 1
                if (!sub(/\/[^\/]*$/, "", above)) return 0
            }
        }
        {
            file = $3
            gone = sub(/ \(deleted\)$/, "", file)
            kept = index(file, state) == 1 || file ~ /\/\.[^\/]*\.ua-(old|trash)(\/|$)/
            if (gone && file "/" == app) kept = 1
            if (!kept && !(gone && index(file, app) == 1 && of_release(substr(file, length(app) + 1)))) next
            if (!($1 in told)) print $1 " (process " $2 " has open what is not there any more: " file ")"
            told[$1]
        }
    ' "$release/paths" "$work/outputs" "$work/open"
}

# Units whose main process ended while it was inspected.
died() {
    cut -f 2 "$work/died" >"$work/died.names"
    some "$work/died.names"
}

# Was process PID started after the restart?
newer() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk -v ticks="$ticks" -v up="$up" '{ exit !($20 / ticks >= up - 0.05) }'; }

# Every process of the unit with main process PID and control group GROUP.
processes() {
    {
        echo "$1"
        [ -z "$2" ] || find "/sys/fs/cgroup$2" -name cgroup.procs -exec cat {} + 2>/dev/null
    } | sort -un
}

# What process PID runs, maps, or holds open. One that has ended meanwhile holds nothing.
opened() {
    {
        readlink "/proc/$1/cwd" "/proc/$1/exe"
        sed -n 's,^[^/]*\(/.*\),\1,p' "/proc/$1/maps"
        find "/proc/$1/fd" -type l -printf '%l\n'
    } 2>/dev/null
}

# Right in one pass, after a while. What is not may stay so for as long as it is allowed to, unless a process of a unit
# that was restarted ended again.
prove() {
    begun=$(uptime_s)
    while :; do
        access >"$work/access.now" &
        prove_once
        wait
        same_access
        [ "$step" = restore ] || crashed
        [ -s "$work/found" ] || return 0
        # What has time left is no reason.
        awk -F '\t' -v spent="$(($(uptime_s) - begun))" 'spent >= $2' "$work/found" >"$work/over"
        if [ -s "$work/over" ]; then
            mv "$work/over" "$work/found"
            cut -f 4 "$work/found" >"$work/wrong"
            return 1
        fi
        sleep 0.3
    done
}

# Adds units that were up, and whose process ended since.
crashed() {
    unit_states | awk -F '\t' '
        FILENAME == ARGV[1] { restarted[$1] = 1; next }
        FILENAME == ARGV[2] { was[$1] = $4 FS $5; next }
        ($1 in restarted) && ($2 != "active" || was[$1] != $4 FS $5) {
            name = $1
            sub(/\.service$/, "", name)
            print "unit:" name "\t0\t" $1 "\t" name " ended again after it was up (" $2 "/" $3 ")"
        }
    ' "$work/restart" "$work/states" - >"$work/crashed"
    cat "$work/crashed" >>"$work/found"
    cut -f 4 "$work/crashed" >>"$work/wrong"
}

# By what others reach this machine, a line each.
access() {
    if ! timeout 5 tailscale status --peers=false >/dev/null 2>&1; then return 0; fi
    echo 'the tailnet'
    at=$(timeout 5 tailscale ip -4 2>/dev/null):$(order ssh_port)
    # An ssh server greets whoever connects.
    case $(curl --silent --http0.9 --max-time 5 "http://$at/" 2>/dev/null </dev/null | head -c 4 | tr -d '\0') in
        SSH-) echo "ssh at $at" ;;
    esac
}

# A release must not take away the way in that there was. One that was put back did not: where the way in is gone all the
# same, it went by itself, and what serves is none the worse for it.
same_access() {
    lost_access
    if [ ! -s "$work/lost" ] || [ "$step" = restore ]; then return 0; fi
    lost="no longer reached by $(joined <"$work/lost")"
    printf 'access\t%s\t-\t%s\n' "$(allowed)" "$lost" >>"$work/found"
    echo "$lost" >>"$work/wrong"
}

lost_access() {
    : >"$work/lost"
    [ ! -s "$work/access" ] || grep -vxF -f "$work/access.now" "$work/access" >"$work/lost" || :
}

# Waits for workers that have a mission, since a restart would end it. Where nobody can say, nobody is restarted.
drain() {
    workers
    if [ -z "$mission_rows" ] || [ ! -s "$work/session" ] || [ ! -s "$work/restart" ]; then return 0; fi
    patience=$(order drain_timeout)
    end=$(($(uptime_s) + patience)) told=''
    while :; do
        find_busy "$work/restart" running_missions
        [ -s "$work/busy" ] || break
        busy=$(cut -f 3 "$work/busy" | joined)
        if [ "$patience" -eq 0 ]; then
            warn drain "restarted in the middle of something, as was asked: $busy"
            return 0
        fi
        [ "$(uptime_s)" -lt "$end" ] || fail 31 "still busy after $patience s: $busy"
        [ "$busy" = "$told" ] || echo "== waiting for $busy"
        told=$busy
        sleep 0.5
    done
    pass drain 'no worker that is restarted has a mission'
}

# What the failing units said last, all of them and no others.
diagnose() {
    case $step in
        units) failing && cut -f 1 "$work/died" ;;
        health) awk -F '\t' '$3 != "-" { print $3 }' "$work/found" | sort -u ;;
    esac >"$work/failing"
    while IFS= read -r unit; do
        said=$(unit_words "$unit" 12 cat "$work/written")
        [ -z "$said" ] || printf '%s said last:\n%s\n' "$unit" "$said"
    done <"$work/failing"
}

# ---- the way back

put_back() {
    reason=$1
    decided=$step
    begin restore 'putting back what was there before'
    case $verb in
        restore | expire)
            if [ ! -f "$release/served" ] || ! newest; then
                check fail restore 'another release was put in place since'
                exit 1
            fi
            ;;
    esac
    # Room first: the disk may be what was full. But somebody may be uploading the same commit again.
    [ "$verb" = expire ] || rm -rf "$state/build/$id" "$state/incoming/$(order commit)"
    note_pending || :
    record activating 34 unknown 'the activation ended while it put things back' || :
    files_back || give_up "not everything could be put back"
    sync -f "$app"
    snapshot "$work/after" || give_up "what is there now could not be read"
    unlike=$(awk -F '\t' '
        FILENAME == ARGV[1] { written[$1] = 1; next }
        FILENAME == ARGV[2] { touched[$1] = 1; next }
        FILENAME == ARGV[3] { was[$3] = $1 FS $2; next }
        ($3 in touched) && !($3 in written) && was[$3] != $1 FS $2 { print $3 }
    ' "$work/preserve" "$release/touched" "$release/before" "$work/after" | head -n 5 | joined)
    [ -f "$release/was_serving" ] || give_up "what was there before is back, but none of its units ran before either"
    begin restore 'restarting what was there before'
    running=$release/running.before
    as_before
    restart || give_up "what was there before is back, but could not be restarted"
    # Without the list, as after a kill before it was written, everything has to be right.
    [ ! -f "$release/wrong.before" ] || cp "$release/wrong.before" "$work/excused" || : >"$work/excused"
    await_units || give_up "what was there before is back, but does not run: $(not_ready)"
    prove || give_up "what was there before is back, but is not right: $(joined <"$work/wrong")"
    ordered=$release/orders
    [ -z "$unlike" ] || give_up "what was there before serves, but these paths are not as they were: $unlike"
    rm -f "$release/served" "$release/switched"
    pass restore "what was there before serves again: $(joined <"$work/right")"
    [ ! -s "$work/excuse" ] || warn restore.before "was so before this deploy as well: $(joined <"$work/excuse")"
    but=''
    if [ -s "$work/lost" ]; then
        but="this machine is still not reached by $(joined <"$work/lost"), as it was before this deploy"
        warn access "$but; the release that was put back runs, so look at tailscaled and sshd"
        but=", but $but"
    fi
    step=$decided
    finish rolled-back 33 old "$reason; what was there before serves again$but"
}

# From here on it is about the units of the release before, as that one was told to prove them: those that ran. Restarted
# is what this release restarted, and whatever is not as it was: it may have been started from a tree of both.
as_before() {
    old=$state/releases/$(cat "$release/upon")/orders
    cp "$work/restart" "$work/ours" && cp "$work/unit" "$work/new" || return 1
    [ ! -f "$old" ] || ordered=$old
    read_orders || return 1
    : >"$work/enable"
    if [ "${ordered-}" = "$old" ]; then
        grep -vxF -f "$work/unit" "$work/new" >"$work/came" || :
        # What came with this release goes with it. What ran before it, though the release before did not know it, goes on.
        awk -F '\t' -v stays="$work/unit" '
            FILENAME == ARGV[1] { ran[$1] = ($2 == "active"); next }
            ran[$1] { print >>stays; next }
            { print }
        ' "$release/states" "$work/came" | xargs -r systemctl stop
    fi
    awk -F '\t' 'FILENAME == ARGV[1] { ran[$1] = ($2 == "active"); next } ran[$1]' "$release/states" "$work/unit" \
        >"$work/ran" && mv "$work/ran" "$work/unit"
    # One that systemd had just started again was no unit that runs.
    awk -F '\t' -v up="$(cat "$release/up" 2>/dev/null)" -v stable="$(order stable)" '
        up != "" && $5 > 0 && up - $6 / 1000000 < stable { print $1 }
    ' "$release/states" >"$work/shaky"
    unit_states | awk -F '\t' '
        FILENAME == ARGV[1] { ours[$1] = 1; next }
        FILENAME == ARGV[2] { was[$1] = $4 FS $6; next }
        ($1 in ours) || $2 != "active" || was[$1] != $4 FS $6 { print $1 }
    ' "$work/ours" "$release/states" - >"$work/restart"
}

give_up() {
    ordered=$release/orders
    check fail restore "$1"
    rm -f "$release/served"
    step=$decided
    finish broken 34 unknown "$reason; $1"
}

# Whatever is taken away is kept with the release: the server may have written to it.
files_back() {
    # Until all of these are there nothing of the app was touched.
    [ -f "$backup/installed" ] || return 0
    away=$release/failed
    mkdir -p "$away/tree" "$away/outputs" || return 1
    while IFS= read -r path; do
        take_away "$path" "$away/tree" || return 1
    done <"$backup/added"
    # Only what is not as it was: a copy in the backup may be half of one, where the file itself was not replaced yet.
    snapshot "$work/now" || return 1
    awk -F '\t' '
        FILENAME == ARGV[1] { was[$3] = $1 FS $2; next }
        was[$3] != $1 FS $2 { print $3 }
    ' "$release/before" "$work/now" | while IFS= read -r path; do
        if exists "$backup/tree/$path"; then printf '%s\n' "$path"; fi
    done >"$work/back"
    for_rsync <"$work/back" >"$work/back0"
    rm -rf "$backup/temp"
    mkdir "$backup/temp" || return 1
    [ ! -s "$work/back0" ] || rsync --archive --omit-dir-times --checksum --delay-updates --temp-dir="$backup/temp" \
        --files-from="$work/back0" --from0 "$backup/tree/" "$app/" || move_back || return 1
    sweep
    while IFS=$tab read -r had output; do
        output_back "$had" "$output" || return 1
    done <"$backup/swapped"
    unstage
    into=$(order unit_dir)
    while IFS=$tab read -r had name; do
        if [ "$had" = had ]; then
            install -m 0644 "$backup/units/$name" "$into/$name" || return 1
        else
            rm -f "$into/$name" || return 1
        fi
    done <"$backup/installed"
}

# Where there is no room for copies the backup itself is moved.
move_back() {
    rsync --recursive --owner --group --perms --include='*/' --exclude='*' "$backup/tree/" "$app/" || return 1
    while IFS= read -r path; do
        (enter "$path" && mv -f -T -- "$backup/tree/$path" "./${path##*/}") || return 1
    done <"$work/back"
}

# What an rsync that was killed leaves in the directories it worked in.
sweep() {
    sed 's|[^/]*$|.~tmp~|' "$release/paths" | sort -u >"$work/temporary"
    while IFS= read -r path; do
        (enter "$path" && rm -rf ./.~tmp~)
    done <"$work/temporary"
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
