#!/bin/sh
# The old scripts' names, for callers that are not migrated yet: put this file where they look, under the names below.
# Runs the tool of $UA_BIN_DIR or PATH, else the old script beside it (NAME.old.sh), else says that there is neither.
name=${0##*/}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P) || exit 127
old=$here/${name%.sh}.old.sh
case $name in
sync_remote_workspaces.sh) tool=ua-sync verb='' ;;
pull_remote_workspaces_now.sh) tool=ua-sync verb=pull ;;
remote_workspace_sync_control.sh) tool=ua-sync verb=timer ;;
install_remote_workspace_sync_timer.sh) tool=ua-sync verb='timer on' ;;
configure_tailnet_staging.sh) tool=ua-staging verb='' ;;
deploy_vps.sh) tool=ua-deploy verb='' ;;
vpsctl.sh) tool=ua-vpsctl verb='' ;;
*)
	echo "$name: not the name of an old script; see the list in $0" >&2
	exit 127
	;;
esac
UA_REPO_DIR=${UA_REPO_DIR:-${here%/*}}
export UA_REPO_DIR
program=${UA_BIN_DIR:+$UA_BIN_DIR/$tool}
[ -x "$program" ] || program=$(command -v "$tool") || program=
# The verb is one word, two words, or none.
# shellcheck disable=SC2086
[ -z "$program" ] || exec "$program" $verb "$@"
[ ! -x "$old" ] || exec "$old" "$@"
echo "$name: there is no $tool in \$UA_BIN_DIR or PATH, and no $old" >&2
exit 127
