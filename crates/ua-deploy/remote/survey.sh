# Looks at everything a deploy depends on and prints WHAT<TAB>FIELDS… lines. Changes nothing.
# usage: survey STATE APP USER GROUP ENV-FILE BUILD-PATH {program|tool|unit|key|secret NAME}…

main() {
    state=$1 app=$2 user=$3 group=$4 env=$2/$5 path=$6
    shift 6
    tab=$(printf '\t')
    fact uid "$(id -u)"
    fact app "$(kind "$app")"
    fact user "$(id -u "$user" >/dev/null 2>&1 && echo yes)"
    fact group "$(getent group "$group" >/dev/null 2>&1 && echo yes)"
    keys='' secrets=''
    while [ $# -gt 1 ]; do
        case $1 in
            program) fact program "$2$tab$(PATH=$path command -v "$2")" ;;
            tool) fact tool "$2$tab$(command -v "$2")" ;;
            unit) fact unit "$2$tab$(systemctl show --property=LoadState --value "$2" 2>/dev/null)" ;;
            key) keys="$keys $2" ;;
            secret) secrets="$secrets $2" ;;
        esac
        shift 2
    done
    if [ -f "$env" ] && [ ! -L "$env" ]; then
        fact env "$(stat -c "%U:%G$tab%a" "$env")"
        env_lines
    fi
    for dir in "$(above "$state")" "$(above "$app")"; do
        fact free "$dir$tab$(df -Pk "$dir" | awk 'NR == 2 { print $4 }')"
    done
    served=''
    for marker in "$state"/releases/*/served; do
        [ ! -e "$marker" ] || served=${marker%/served}
    done
    if [ -n "$served" ]; then
        fact served "${served##*/}"
        awk -F '\t' '$1 == "step" { print "built\t" $2 "\t" $4 }' "$served/orders"
    fi
    if [ -f "$state/lock" ] && ! flock --shared --nonblock "$state/lock" true; then
        fact busy "$(head -n 1 "$state/lock")"
    fi
    [ ! -f "$state/history.jsonl" ] || tail -n 2000 "$state/history.jsonl" | sed "s/^/history$tab/"
}

fact() {
    printf '%s\t%s\n' "$1" "$2"
}

kind() {
    if [ -L "$1" ]; then
        echo link
    elif [ -d "$1" ]; then
        echo dir
    elif [ -e "$1" ]; then
        echo other
    else
        echo missing
    fi
}

# The nearest directory that exists.
above() {
    dir=$1
    while [ ! -d "$dir" ]; do dir=$(dirname "$dir"); done
    echo "$dir"
}

# The lines that assign the keys we were asked for, as they are. Of secrets only the shape: whether something is there.
env_lines() {
    awk -v keys="$keys" -v secrets="$secrets" '
        BEGIN {
            n = split(keys, list, " ")
            for (i = 1; i <= n; i++) wanted[list[i]] = "key"
            n = split(secrets, list, " ")
            for (i = 1; i <= n; i++) wanted[list[i]] = "secret"
        }
        {
            name = $0
            if (!sub(/[ \t]*=.*/, "", name)) next
            sub(/^[ \t]*(export[ \t]+)?/, "", name)
            if (!(name in wanted)) next
            at = index($0, "=")
            value = substr($0, at + 1)
            if (wanted[name] == "secret") gsub(/[^" \t\r\047]/, "x", value)
            print "line\t" substr($0, 1, at) value
        }
    ' "$env"
}

main "$@"
