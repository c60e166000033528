#!/bin/sh
# shellcheck disable=SC2005 # tests replace lines of it
# Stands in for systemctl, as far as a deploy can see it: every unit runs, and a restart gives it a new start time.
# A unit is what `exec.UNIT` says, else a process that sleeps. `broken` names what does not come up while that text is in
# the app's `version` file. All of this lies in $ROOT.
echo "$*" >>"$ROOT/systemctl.calls"
case $1 in
    restart)
        echo x >>"$ROOT/restarts"
        for unit in "$@"; do
            case $unit in
                *.service)
                    # Something that comes from the app's directory, unless a test says where else from.
                    cd "$(cat "$ROOT/elsewhere" 2>/dev/null || echo "$ROOT/app")" || exit 1
                    [ -e "$ROOT/old-process" ] || kill "$(cat "$ROOT/pid.$unit" 2>/dev/null)" 2>/dev/null
                    held=$(cat "$ROOT/holds" 2>/dev/null || echo /dev/null)
                    program=$(cat "$ROOT/exec.$unit" 2>/dev/null || echo 'exec sleep 300')
                    [ -e "$ROOT/old-process" ] || { sh -c "$program" >/dev/null 2>&1 5<"$held" 7<&- 9<&- & echo $! >"$ROOT/pid.$unit"; }
                    started=$(awk -v n="$(wc -l <"$ROOT/restarts")" '{ printf "%.0f", $1 * 1000000 + n }' /proc/uptime)
                    echo "$started" >"$ROOT/start.$unit"
                    ;;
            esac
        done
        [ ! -e "$ROOT/app/on-restart" ] || sh "$ROOT/app/on-restart"
        ;;
    show)
        case $* in
            *--value*)
                shift 3
                cat "$ROOT/active.$1" 2>/dev/null || echo inactive
                exit
                ;;
        esac
        shift 2
        for unit in "$@"; do
            case $unit in -*) continue ;; esac
            state=active
            [ -e "$ROOT/was-running" ] || [ -e "$ROOT/start.$unit" ] || state=inactive
            if grep -qx "$(cat "$ROOT/app/version" 2>/dev/null)" "$ROOT/broken"; then state=activating; fi
            printf 'Id=%s\nLoadState=loaded\nActiveState=%s\nSubState=x\nMainPID=%s\nNRestarts=0\n' \
                "$unit" "$state" "$(cat "$ROOT/pid.$unit" 2>/dev/null || echo 0)"
            printf 'ExecMainStartTimestampMonotonic=%s\n\n' "$(($(cat "$ROOT/start.$unit" 2>/dev/null || echo 0) + 1))"
        done
        ;;
esac
