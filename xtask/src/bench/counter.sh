#!/bin/sh
# Stands before the real ssh on the PATH, and writes down when it is called, how, and with which script:
#   SECONDS<TAB>{master|shared|alone}<TAB>SCRIPT

now=$(date +%s.%N)
dir=${0%/*}/..
case " $* " in
    *" -V "* | *" -G "* | *" -O "*) exec /usr/bin/ssh "$@" ;;
    *" -M -N "*) kind=master ;;
    *" ProxyCommand=false "*) kind=shared ;;
    *) kind=alone ;;
esac
case "$*" in
    *"rsync --server"*) what=upload ;;
    *" sh -s")
        # Its own usage line, behind the arguments, which may hold another script.
        cat >"$dir/script.$$"
        what=$(awk 'body && /^# usage: / { print $3; exit } /^\($/ { body = 1 }' "$dir/script.$$")
        ;;
    *) what=connect ;;
esac
printf '%s\t%s\t%s\n' "$now" "$kind" "$what" >>"$dir/calls"
if [ -f "$dir/script.$$" ]; then exec /usr/bin/ssh "$@" <"$dir/script.$$"; fi
exec /usr/bin/ssh "$@"
