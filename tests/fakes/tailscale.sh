# shellcheck shell=sh
# Replays what the real `tailscale` was seen to do in one scenario of the lab.
# The test sets $captured (the scenario's directory) and $calls (a file that takes one line per call).
# shellcheck disable=SC2154
echo "$*" >>"$calls"
case "$*" in
"status --json") name=status ;;
"ping "*--until-direct=false*) name=ping ;;
"ping "*) name=ping-direct ;;
"debug prefs") name=prefs ;;
"dns status --json") name=dns-status ;;
*)
	echo "not captured: tailscale $*" >&2
	exit 64
	;;
esac
for out in "$captured/$name.stdout" "$captured/$name.json"; do
	[ ! -f "$out" ] || cat "$out"
done
[ ! -f "$captured/$name.stderr" ] || cat "$captured/$name.stderr" >&2
code=0
[ ! -f "$captured/$name.code" ] || read -r code <"$captured/$name.code"
exit "$code"
