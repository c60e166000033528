# shellcheck shell=sh disable=SC2034,SC2154
# The lines of $env, and of what $env_command prints, that the contract of a deploy speaks of. Sent together with the scripts
# that ask.

# as_owner SECONDS PROGRAM ARGUMENT… runs a program as $user with $build_path as its PATH, and with nothing else of ours. What
# the owner can write is never run by root.
as_owner() {
    seconds=$1
    shift
    # The owner can end the inner one; the outer one would have `runuser` say so.
    timeout --kill-after=2 "$((seconds + 4))" runuser -u "$user" -- \
        env -i HOME="$(getent passwd "$user" | cut -d : -f 6)" USER="$user" LOGNAME="$user" PATH="$build_path" LC_ALL=C.UTF-8 \
        /usr/bin/timeout --kill-after=2 "$seconds" "$@" </dev/null
}

# Runs $env_command, if there is one, as the owner in $app. Sets $env_said to the lines that it printed; where it fails these
# are none, and $env_failed is CODE<TAB>the end of its stderr without any value that is known here. Values lie in variables
# of this shell only.
ask_env_command() {
    env_said='' env_failed=''
    [ -n "${env_command-}" ] || return 0
    # What it leaves running holds nothing up: whoever reads from it has a limit, too. Out come lines of stderr, one with \001,
    # lines of stdout, and one with the code. No pattern of the shell is matched with them, which takes it for ever.
    all=$({
        said=$({ cd "$app" && as_owner 30 /bin/sh -c "$env_command" 2>&4 4>&-; printf '\n=%s' "$?"; } |
            { timeout 40 head -c 1000000; [ -z "$(timeout 40 tail -c 1)" ] || printf '\n=more'; })
        printf '\n\001\n%s' "$said"
    } 4>&1 | timeout 45 head -c 1100000)
    code=$(printf '%s\n' "$all" | tail -n 1)
    said=$(printf '%s\n' "$all" | sed "1,/^$(printf '\001')\$/d" | sed '$d')
    if [ "$code" = =0 ]; then
        # A shell may have made them; `export` means something in the file only.
        env_said=$(printf '%s' "$said" | sed 's/^[[:space:]]*export[[:space:]]\{1,\}//')
    else
        case $code in
            =[1-9]*) code=${code#=} ;;
            *) code=0 ;;
        esac
        env_failed="$code$(printf '\t')$({
            env_text
            printf '%s\n\001\n%s\n' "$said" "$(printf '%s\n' "$all" | sed "/^$(printf '\001')\$/,\$d")"
        } | without_values)"
    fi
}

# What is known of the environment: the file, and what the command adds to it and goes before it.
env_text() {
    if [ -f "$env" ] && [ ! -L "$env" ]; then cat "$env"; fi
    [ -z "$env_said" ] || printf '\n%s\n' "$env_said"
}

# The last lines behind a line of \001 as one, without the values that are assigned before it.
without_values() {
    awk '
        # Each of them is sought in the text as it was: one may be a part of another.
        function masked(text,   secret, size, from, at, i, out) {
            if (length(text) > 4000) return "(a line of " length(text) " characters)"
            split("", covered)
            for (secret in value) {
                size = length(secret)
                for (from = 1; (at = index(substr(text, from), secret)) > 0; from += at)
                    for (i = from + at - 1; i < from + at - 1 + size; i++) covered[i] = 1
            }
            for (i = 1; i <= length(text); i++) {
                if (!(i in covered)) out = out substr(text, i, 1)
                else if (!((i - 1) in covered)) out = out "***"
            }
            return out
        }
        $0 == "\001" { words = 1; next }
        !words {
            sub(/^[^=]*=/, "")
            gsub(/^[ \t"\047]+|[ \t\r"\047]+$/, "")
            # A shorter one is a switch.
            if (length($0) >= 4) value[$0] = 1
            next
        }
        NF > 0 { line[++lines] = $0 }
        END {
            for (n = lines > 3 ? lines - 2 : 1; n <= lines; n++) {
                text = masked(line[n])
                out = ""
                while (match(text, /[A-Za-z_][A-Za-z0-9_]*=[^ \t]+/)) {
                    at = index(substr(text, RSTART), "=")
                    out = out substr(text, 1, RSTART + at - 1) "***"
                    text = substr(text, RSTART + RLENGTH)
                }
                joined = joined (joined == "" ? "" : " / ") out text
            }
            print substr(joined, 1, 400)
        }
    ' | tr '\000-\011\013-\037\177' ' '
}

# env_lines KEYS SECRETS WORDS, lists with blanks between. Prints line<TAB>LINE for each of env_text that assigns one of them:
#   KEYS     as it is
#   SECRETS  only the shape of the value: whether something is there
#   WORDS    KEY=WORD,WORD: of the value only what is one of these words; whatever else is there becomes a character that
#            no word has, so that it can be judged and not read
env_lines() {
    env_text | awk -v keys="$1" -v secrets="$2" -v words="$3" '
        function told(value, few,   n, list, i, ok, out, word, plain) {
            n = split(few, list, ",")
            for (i = 1; i <= n; i++) ok[tolower(list[i])] = 1
            while (match(value, /[^" ,\t\r\047]+/)) {
                plain = word = substr(value, RSTART, RLENGTH)
                gsub(/\\/, "", plain)
                out = out substr(value, 1, RSTART - 1) ((tolower(plain) in ok) ? word : "\001")
                value = substr(value, RSTART + RLENGTH)
            }
            return out value
        }
        BEGIN {
            n = split(keys, list, " ")
            for (i = 1; i <= n; i++) wanted[list[i]] = "key"
            n = split(secrets, list, " ")
            for (i = 1; i <= n; i++) wanted[list[i]] = "secret"
            n = split(words, list, " ")
            for (i = 1; i <= n; i++) {
                at = index(list[i], "=")
                wanted[substr(list[i], 1, at - 1)] = "words"
                allowed[substr(list[i], 1, at - 1)] = substr(list[i], at + 1)
            }
        }
        {
            name = $0
            if (!sub(/[ \t]*=.*/, "", name)) next
            sub(/^[ \t]*(export[ \t]+)?/, "", name)
            if (!(name in wanted)) next
            at = index($0, "=")
            value = substr($0, at + 1)
            if (wanted[name] == "secret") gsub(/[^" \t\r\047]/, "x", value)
            if (wanted[name] == "words") value = told(value, allowed[name])
            print "line\t" substr($0, 1, at) value
        }
    '
}
