# Looks at everything a deploy depends on and prints WHAT<TAB>FIELDS… lines. Changes nothing.
# usage: survey STATE APP USER GROUP ENV-FILE BUILD-PATH MANIFEST-DIGEST
#        {program|version|tool|unit|template|key|secret NAME | word KEY=WORD,WORD | env_command LINE
#         | step NAME=DIGEST | output STEP=PATH | endpoint NAME=URL}…

# shellcheck disable=SC2034 # others read them
main() {
    state=$1 app=$2 user=$3 group=$4 env=$2/$5 build_path=$6 manifest=$7
    shift 7
    tab=$(printf '\t')
    fact uid "$(id -u)"
    fact app "$(kind "$app")"
    fact user "$(id -u "$user" >/dev/null 2>&1 && echo yes)"
    fact group "$(getent group "$group" >/dev/null 2>&1 && echo yes)"
    keys='' secrets='' words='' env_command='' env_failed='' units='' versions='' steps='' outputs=''
    while [ $# -gt 1 ]; do
        case $1 in
            program) fact program "$2$tab$(PATH=$build_path command -v "$2")" ;;
            version) versions="$versions $2" ;;
            tool) fact tool "$2$tab$(command -v "$2")" ;;
            unit) units="$units $2" ;;
            template) fact installed "$2$tab$(sha256sum <"/etc/systemd/system/$2" 2>/dev/null | cut -c 1-64)" ;;
            step) steps="$steps $2" ;;
            output) outputs="$outputs $2" ;;
            key) keys="$keys $2" ;;
            secret) secrets="$secrets $2" ;;
            word) words="$words $2" ;;
            env_command) env_command=$2 ;;
            endpoint) fact endpoint "${2%%=*}$tab$(told "${2#*=}")" ;;
        esac
        shift 2
    done
    if [ -f "$env" ] && [ ! -L "$env" ]; then
        fact env "$(stat -c "%U:%G$tab%a" "$env")"
        ask_env_command
        [ -z "$env_failed" ] || fact env_failed "$env_failed"
        env_lines "$keys" "$secrets" "$words"
    fi
    version_facts
    unit_facts
    for dir in "$(above "$state")" "$(above "$app")"; do
        fact free "$dir$tab$(df -Pk "$dir" | awk 'NR == 2 { print $4 }')$tab$(stat -c %d "$dir")"
    done
    served='' newest=''
    for dir in "$state"/releases/*; do
        [ ! -e "$dir/served" ] || served=$dir
        [ ! -e "$dir/switched" ] || newest=$dir
    done
    fact newest "${newest##*/}"
    [ -z "$served" ] || served_facts
    sizes
    fact last_push "$(last_push)"
    open_pushes | sed "s/^/pushed$tab/"
    if [ -f "$state/lock" ] && ! flock --shared --nonblock "$state/lock" true; then
        fact busy "$(head -n 1 "$state/lock")"
    fi
    [ ! -f "$state/history.jsonl" ] || tail -n 2000 "$state/history.jsonl" | sed "s/^/history$tab/"
}

fact() {
    printf '%s\t%s\n' "$1" "$2"
}

# The status that URL answers with, and the first of its body on one line.
told() {
    curl --silent --max-time 3 --max-filesize 1000000 --write-out '\n%{http_code}' "$1" | awk '
        { line[NR] = $0 }
        END {
            for (n = 1; n < NR; n++) body = body line[n] " "
            gsub(/[[:cntrl:]]/, " ", body)
            print line[NR] "\t" substr(body, 1, 4096)
        }
    '
}

# CODE of `NAME --version` and the beginning of what it prints, of all of them at once. A process that one of them leaves
# behind is not waited for.
version_facts() {
    id -u "$user" >/dev/null 2>&1 || return 0
    for name in $versions; do
        version_fact "$name" &
    done
    wait
}

version_fact() {
    said=$({ cd / && as_owner 10 "$1" --version 2>&1; printf '=%03d' $?; } |
        { timeout 15 head -c 400; timeout 15 tail -c 4; } | tr '\000-\037\177' '[ *]')
    fact version "$1$tab${said##*=}$tab${said%=*}"
}

# LOAD, ACTIVE and SUB state of each unit, its restarts, for how many seconds it is in that state, and how long it may take
# to start and to stop. Then an `input` for each path of the app that the unit names, and a `stale` for each of its
# environment files that changed after it was started; the one of the profile is judged by its keys.
unit_facts() {
    [ -n "$units" ] || return 0
    # shellcheck disable=SC2086
    systemctl show --property=Id,LoadState,ActiveState,SubState,NRestarts,StateChangeTimestampMonotonic \
        --property=TimeoutStartUSec,TimeoutStopUSec,ExecMainStartTimestampMonotonic \
        --property=ExecStart,ExecStartPre,WorkingDirectory,EnvironmentFiles $units 2>/dev/null |
        awk -v up="$(cut -d ' ' -f 1 /proc/uptime)" -v app="$app/" -v env="$env" '
            function row() {
                if (!("Id" in value)) return
                age = int(up - value["StateChangeTimestampMonotonic"] / 1000000)
                print "unit", value["Id"], value["LoadState"], value["ActiveState"], value["SubState"], \
                    value["NRestarts"] + 0, age, value["TimeoutStartUSec"], value["TimeoutStopUSec"]
                for (path in input) print "input", value["Id"], path
                started = value["ExecMainStartTimestampMonotonic"] / 1000000
                for (path in file) if (path != env && started > 0) print "file", value["Id"], path, int(up - started)
                split("", value); split("", input); split("", file)
            }
            # Of TEXT all words below the directory of the app.
            function named(text,   word, n, i) {
                n = split(text, word, /[ \t"\047=:;]+/)
                for (i = 1; i <= n; i++) if (index(word[i], app) == 1 && word[i] != app) input[substr(word[i], length(app) + 1)]
            }
            BEGIN { OFS = "\t" }
            $0 == "" { row(); next }
            {
                at = index($0, "=")
                key = substr($0, 1, at - 1)
                text = substr($0, at + 1)
                value[key] = text
            }
            key == "ExecStart" || key == "ExecStartPre" || key == "WorkingDirectory" { named(text) }
            key == "EnvironmentFiles" {
                sub(/ \(ignore_errors=(yes|no)\)$/, "", text)
                file[text]
                if (index(text, app) == 1) input[substr(text, length(app) + 1)]
            }
            END { row() }
        ' | while IFS= read -r line; do
        case $line in
            "file$tab"*)
                rest=${line#*"$tab"}
                name=${rest%%"$tab"*} rest=${rest#*"$tab"}
                path=${rest%"$tab"*}
                changed=$(stat -c %Y "$path" 2>/dev/null) || continue
                [ "$changed" -le "$(($(date +%s) - ${rest##*"$tab"}))" ] || fact stale "$name$tab${path#"$app/"}"
                ;;
            *) printf '%s\n' "$line" ;;
        esac
    done
}

# What the release that serves put there, built and started, and what of that is not so any more.
served_facts() {
    fact served "${served##*/}"
    # Where a later one was neither proved nor put back, nobody knows what of this still holds.
    [ "$newest" = "$served" ] || return 0
    if ! drift=$(differing "$served"); then return 0; fi
    fact known yes
    [ -z "$drift" ] || printf '%s\n' "$drift" | sed "s/^/drift$tab/"
    if [ "$(sha256sum <"$served/manifest" | cut -c 1-64)" = "$manifest" ]; then
        fact same yes
    else
        sed "s/^/put$tab/" "$served/manifest"
    fi
    awk -F '\t' '$1 == "step" { print $2 "\t" $4 }' "$served/orders" | while IFS=$tab read -r step digest; do
        awk -F '\t' -v step="$step" '$1 == "output" && $2 == step { print $3 }' "$served/orders" |
            while IFS= read -r output; do [ -e "$app/$output" ] || exit 1; done &&
            fact built "$step$tab$digest"
    done
    [ ! -f "$served/running" ] || sed "s/^/runs$tab/" "$served/running"
    # Where the command failed nobody can say.
    if [ -f "$served/env" ] && [ -f "$env" ] && [ ! -L "$env" ] && [ -z "$env_failed" ]; then
        env_text | env_digests | awk -F '\t' '
            # An older release noted the whole of the file, too.
            $1 == "=" { next }
            FILENAME == ARGV[1] { old[$1] = $2; next }
            !($1 in old) { print "env_key\tadded\t" $1 }
            ($1 in old) && old[$1] != $2 { print "env_key\tchanged\t" $1 }
            { delete old[$1] }
            END { for (key in old) print "env_key\tremoved\t" key }
        ' "$served/env" -
    fi
}

# KiB of what a step would make anew, as it is now.
sizes() {
    for step in $steps; do
        [ -z "$served" ] || ! awk -F '\t' -v name="${step%%=*}" -v digest="${step#*=}" '
            $1 == "step" && $2 == name && $4 == digest { same = 1 }
            END { exit !same }
        ' "$served/orders" || continue
        for output in $outputs; do
            if [ "${output%%=*}" = "${step%%=*}" ] && [ -e "$app/${output#*=}" ]; then
                fact size "${step%%=*}$tab$(du -skx "$app/${output#*=}" | cut -f 1)"
            fi
        done
    done
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

main "$@"
