# shellcheck shell=sh
# How units are. Changes nothing; sent together with seen.sh and ledger.sh.
# usage: units STATE HEALTH [?]UNIT…
seen "$@"
