# shellcheck shell=sh
# What lies in the app's directory, as against what a release put there. Sent together with the scripts that ask.

# Prints KIND<TAB>DIGEST-OR-TARGET<TAB>PATH for each line of PATHS, below the current directory: f file, x program,
# l link, d directory, o something else or something behind a link, - nothing. Only what is a file is opened.
lying() {
    [ -n "$1" ] || return 0
    last='' through=''
    printf '%s\n' "$1" | while IFS= read -r path; do
        if linked "$path"; then
            printf 'o\t-\t%s\n' "$path"
        elif [ -L "./$path" ]; then
            printf 'l\t%s\t%s\n' "$(readlink -- "./$path")" "$path"
        elif [ -f "./$path" ]; then
            :
        elif [ -d "./$path" ]; then
            printf 'd\t-\t%s\n' "$path"
        elif [ -e "./$path" ]; then
            printf 'o\t-\t%s\n' "$path"
        else
            printf '%s\t-\t%s\n' - "$path"
        fi
    done
    printf '%s\n' "$1" | while IFS= read -r path; do
        if is_file "$path" && [ ! -x "./$path" ]; then printf '%s\n' "$path"; fi
    done | digests f
    printf '%s\n' "$1" | while IFS= read -r path; do
        if is_file "$path" && [ -x "./$path" ]; then printf '%s\n' "$path"; fi
    done | digests x
}

is_file() { [ -f "./$1" ] && [ ! -L "./$1" ] && ! linked "$1"; }

# Does a link lead to the directory of PATH? Paths of one directory mostly follow each other.
linked() {
    case $1 in
        */*) walk=${1%/*} ;;
        *) return 1 ;;
    esac
    if [ "$walk" != "$last" ]; then
        last=$walk through=''
        while [ -n "$walk" ]; do
            if [ -L "./$walk" ]; then through=yes; fi
            case $walk in
                */*) walk=${walk%/*} ;;
                *) walk='' ;;
            esac
        done
    fi
    [ -n "$through" ]
}

# Should somebody put a pipe in the place of a file meanwhile, it is not waited for for ever.
digests() {
    timeout 600 xargs -r -d '\n' sha256sum --zero -- | tr '\0' '\n' |
        awk -v kind="$1" '{ print kind "\t" substr($0, 1, 64) "\t" substr($0, 67) }'
}

# Prints the paths of the release in DIRECTORY that are not as it put them there, a line each. Of files that the server
# writes, which the profile preserves, only those that are gone. Fails, and says why, where that cannot be compared.
differing() (
    if [ ! -r "$1/manifest" ] || [ ! -r "$1/orders" ]; then
        echo "release ${1##*/} has no lists any more" >&2
        exit 1
    fi
    app=$(awk -F '\t' '$1 == "app" { print $2; exit }' "$1/orders")
    if [ -z "$app" ] || ! cd -P "$app"; then
        echo "there is no directory of the app: $app" >&2
        exit 1
    fi
    LC_ALL=C
    export LC_ALL
    lying "$(cut -f 3 "$1/manifest")" | awk -F '\t' '
        FILENAME == ARGV[1] { if ($1 == "preserve") preserve[$2] = 1; next }
        FILENAME == ARGV[2] { put[$3] = $1 FS $2; wanted++; next }
        { seen++ }
        ($3 in preserve) && $1 != "-" { next }
        put[$3] != $1 FS $2 { print $3 }
        END { if (seen != wanted) { print "the files of the app changed while they were looked at" >"/dev/stderr"; exit 1 } }
    ' "$1/orders" "$1/manifest" -
)

# Prints KEY<TAB>DIGEST for each key that stdin assigns: what changed can be told by name without keeping any value.
env_digests() {
    text=$(cat)
    printf '%s\n' "$text" |
        sed -n 's/^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}\([A-Za-z_][A-Za-z0-9_]*\)[[:space:]]*=.*/\2/p' |
        sort -u | while IFS= read -r key; do
        assigns="^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}${key}[[:space:]]*="
        printf '%s\t%s\n' "$key" "$(printf '%s\n' "$text" | grep "$assigns" | sha256sum | cut -c 1-64)"
    done
    # Lines of a value that goes on, for instance.
    printf '%s\t%s\n' 'a line that assigns nothing' "$(printf '%s\n' "$text" | grep -v '^[[:space:]]*\(#.*\)\{0,1\}$' |
        grep -v '^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}[A-Za-z_][A-Za-z0-9_]*[[:space:]]*=' | sha256sum | cut -c 1-64)"
}
