# shellcheck shell=sh
# Where units write, and reading that as root. Sent together with the scripts that ask.

# Prints the files that systemd opens for the output of UNIT, a line each; nothing where it goes to the journal. Fails where
# that cannot be told.
#
# `systemctl show` has the kind that was loaded, but no path (252), so that comes from the unit's files.
unit_log_files() (
    kinds=$(systemctl show --property=StandardOutput,StandardError -- "$1") || return 1
    files=''
    for stream in Output Error; do
        kind=$(printf '%s\n' "$kinds" | sed -n "s/^Standard$stream=\([a-z]*\).*/\1/p")
        case $kind in
            append | file | truncate) ;;
            *) continue ;;
        esac
        value=$(systemctl cat -- "$1" 2>/dev/null | unit_setting "Standard$stream")
        [ "${value%%:*}" = "$kind" ] && value=$(unit_expanded "${value#*:}" "$1") || return 1
        files="$files$(printf '%s\n' "$value" | sed ':again; s|//|/|g; s|/\./|/|g; t again')
"
    done
    printf '%s' "$files" | awk '!seen[$0]++'
)

# The last value of KEY in the [Service] sections of unit files.
unit_setting() {
    awk -v key="$1" '
        /^[ \t]*[#;]/ { next }
        { line = line $0 }
        sub(/\\$/, " ", line) { next }
        line ~ /^\[/ { service = (line ~ /^\[Service\]/) }
        service && line ~ "^" key "[ \t]*=" {
            value = line
            sub(/^[^=]*=[ \t]*/, "", value)
            sub(/[ \t\r]+$/, "", value)
            # systemd ignores a path that is not absolute.
            if (value !~ /^[a-z]+:[^\/%]/) last = value
        }
        { line = "" }
        END { print last }
    '
}

# TEXT of a unit file with the specifiers of UNIT in it. Fails at one that is not known here.
unit_expanded() {
    name=${2%.*} left=$1 text=''
    case $name in
        *@*) prefix=${name%%@*} instance=${name#*@} ;;
        *) prefix=$name instance='' ;;
    esac
    while [ "$left" != "${left#*%}" ]; do
        text=$text${left%%\%*}
        left=${left#*%}
        case $left in
            i*) text=$text$instance ;;
            I*) text=$text$(systemd-escape --unescape -- "$instance") || return 1 ;;
            n*) text=$text$2 ;;
            N*) text=$text$name ;;
            p*) text=$text$prefix ;;
            P*) text=$text$(systemd-escape --unescape -- "$prefix") || return 1 ;;
            j*) text=$text${prefix##*-} ;;
            H*) text=$text$(uname -n) ;;
            h*) text=$text/root ;;
            t*) text=$text/run ;;
            S*) text=$text/var/lib ;;
            C*) text=$text/var/cache ;;
            L*) text=$text/var/log ;;
            %*) text=$text% ;;
            *) return 1 ;;
        esac
        left=${left#?}
    done
    printf '%s\n' "$text$left"
}

# For `sh -c "$plain_file" PATH COMMAND…`: runs COMMAND with the file as its stdin. Ends with 3 where there is none, and with 4
# where it is another by a link, or no file. Another user can change what lies at a log's path: nothing of what root alone
# may read is told by that, since what was opened is looked at, and no name.
# shellcheck disable=SC2016
plain_file='
    if [ ! -e "$0" ] && [ ! -L "$0" ]; then exit 3; fi
    if [ ! -f "$0" ] || ! command exec <"$0" || [ "$(readlink /proc/self/fd/0)" != "$0" ] ||
        [ "$(stat -L -c %h /proc/self/fd/0)" -gt 1 ]; then exit 4; fi
    exec "$@"
'

# unit_words UNIT LINES FORMAT [SIZES]: prints what UNIT wrote last, into its files and into the journal. Where it writes to files
# the journal has systemd's words about it, such as how it ended. FORMAT is one of journalctl's. Of a file that SIZES names
# (SIZE<TAB>FILE, a line each) only what comes after that size is shown, unless it was made shorter since.
unit_words() (
    files=$(unit_log_files "$1") || echo '(which file it writes to, if any, cannot be told)'
    from_journal=$2
    [ -z "$files" ] || from_journal=5
    printf '%s' "$files${files:+
}" | while IFS= read -r file; do
        printf '(in %s)\n' "$file"
        size=$(FILE=$file awk -F '\t' 'substr($0, index($0, "\t") + 1) == ENVIRON["FILE"] { print $1; exit }' "${4:-/dev/null}")
        from=200000
        [ "${size:-0}" -eq 0 ] || [ "$size" -gt "$(stat -c %s -- "$file" 2>/dev/null || echo 0)" ] || from=+$((size + 1))
        # A line may be long, and somebody may put a pipe there.
        timeout 10 sh -c "$plain_file" "$file" tail -c "$from" | tail -c 200000 | tail -n "$2" | cut -c 1-2000
    done
    journalctl --no-pager --quiet --output="$3" --lines="$from_journal" --unit="$1"
)
