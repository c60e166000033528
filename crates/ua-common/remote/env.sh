# shellcheck shell=sh disable=SC2154
# The lines of $env that the contract of a deploy speaks of. Sent together with the scripts that ask.

# as_owner SECONDS PROGRAM ARGUMENT… runs a program as $user with $path as its PATH, and with nothing else of ours. What the
# owner can write is never run by root.
as_owner() {
    seconds=$1
    shift
    timeout --kill-after=2 "$seconds" runuser -u "$user" -- env -i HOME="$(getent passwd "$user" | cut -d : -f 6)" \
        USER="$user" LOGNAME="$user" PATH="$path" LC_ALL=C.UTF-8 "$@" </dev/null
}

# env_lines KEYS SECRETS WORDS, lists with blanks between. Prints line<TAB>LINE for each that assigns one of them:
#   KEYS     as it is
#   SECRETS  only the shape of the value: whether something is there
#   WORDS    KEY=WORD,WORD: of the value only what is one of these words; whatever else is there becomes a character that
#            no word has, so that it can be judged and not read
env_lines() {
    awk -v keys="$1" -v secrets="$2" -v words="$3" '
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
    ' "$env"
}
