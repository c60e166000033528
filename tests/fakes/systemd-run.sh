#!/bin/sh
# Stands in for systemd-run. With --wait it runs a build step in the private copy, as the mount would show it, with nothing
# but what was set for it; otherwise it starts a transient unit, which systemctl's stand-in knows until it has ended.
echo "$*" >>"$ROOT/systemd-run.calls"
path='' wait='' unit='' before='' after=''
while :; do
    case $1 in
        --wait) wait=yes ;;
        --unit=*) unit=${1#*=} ;;
        --property=BindPaths=*) copy=${1#*BindPaths=} app=${copy#*:} copy=${copy%%:*} ;;
        --property=WorkingDirectory=*) dir=${1#*WorkingDirectory=} ;;
        --property=RuntimeMaxSec=*) limit=${1#*RuntimeMaxSec=} ;;
        --property=ExecStartPre=-+*) before=${1#*=-+} ;;
        --property=ExecStopPost=-+*) after=${1#*=-+} ;;
        --property=ExecStopPost=*) after=${1#*=ExecStopPost=} ;;
        --setenv=PATH=*) path=${1#--setenv=PATH=} ;;
        # A timer: not now.
        --on-active=*) exit 0 ;;
        -*) ;;
        *) break ;;
    esac
    shift
done
if [ -z "$wait" ]; then
    echo active >"$ROOT/active.$unit.service"
    # shellcheck disable=SC2016 # it expands there
    after=$after unit=$unit setsid sh -c '"$@"; $after; echo inactive >"$ROOT/active.$unit.service"' sh "$@" \
        </dev/null >/dev/null 2>&1 &
    exit 0
fi
for command in "$@"; do :; done
cd "$copy/${dir#"$app"}" || exit 1
$before
[ ! -e "$ROOT/kernel" ] || sh "$ROOT/kernel"
timeout "$limit" env -i PATH="$path" /bin/sh -c "$(printf '%s' "$command" | sed 's/\$\$/$/g')"
code=$?
case $code in
    0) result=success ;;
    124) result=timeout ;;
    *) result=exit-code ;;
esac
# What systemd would say where a test knows better.
[ ! -f "$ROOT/result" ] || result=$(cat "$ROOT/result")
SERVICE_RESULT=$result EXIT_STATUS=$(cat "$ROOT/status" 2>/dev/null || echo "$code") $after
exit $code
