# shellcheck shell=sh disable=SC2154
# Stands in front of $program on the VPS and holds the deploy that comes by, once, until it is told to go on: before or
# after the program has run, as $moment says. Sent below lines that set these two and say by `passes` who is meant.

# Is this who is meant?
here() (
    PATH=/usr/bin:/bin
    [ -e /run/ua-hold/wanted ] && passes "$@"
)

# Tells who is held: this shell, and who waits for it, up to sshd or systemd.
hold() (
    PATH=/usr/bin:/bin
    mkdir /run/ua-hold/held 2>/dev/null || exit 0
    read -r pid _ </proc/self/stat
    while [ "$pid" -gt 1 ] && [ "$(cat "/proc/$pid/comm")" != sshd ]; do
        echo "$pid"
        pid=$(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status")
    done >/run/ua-hold/held/new
    mv /run/ua-hold/held/new /run/ua-hold/held/pids
    rounds=0
    while [ -e /run/ua-hold/wanted ] && [ "$rounds" -lt 1200 ]; do
        sleep 0.1
        rounds=$((rounds + 1))
    done
)

# Is this run by the activation, while the last line of its log that is a title is this one?
activation_at() {
    id=$(sed -n 's/.*ua-deploy-forward-\(.*\)\.service.*/\1/p' /proc/self/cgroup | head -n 1)
    [ -n "$id" ] && [ "$(grep '^== ' "/var/lib/ua-deploy/releases/$id/log" | tail -n 1)" = "== $1" ]
}

# Is this run by the activation, or what it started?
activation() { grep -q 'ua-deploy-[a-z-]*-2' /proc/self/cgroup; }

# Was the newest deploy activated, and not confirmed yet?
unconfirmed() {
    for release in /var/lib/ua-deploy/releases/*; do :; done
    grep -q '"verdict":"unconfirmed"' "$release/record.json"
}

real=/usr/local/bin/$program.held
[ -x "$real" ] || real=/usr/bin/$program
if [ "$moment" = after ]; then
    "$real" "$@"
    code=$?
    ! here "$@" || hold
    exit "$code"
fi
! here "$@" || hold
exec "$real" "$@"
