# shellcheck shell=sh
# How units are. Changes nothing; sent together with seen.sh.
# usage: units STATE [?]UNIT…
seen "$@"
