# One record per workspace from what find says of everything in it, NUL-separated both ways.
# In: "X <status>", or "<R|U> <depth> <type> <size> <mtime> <name>". Depth 1 is a workspace.
# mawk writes large numbers in short, so they are printed with a format of their own.
BEGIN { RS = "\0" }
$1 == "X" { status = $2; next }
{
	name = $0
	sub(/^[RU] [0-9]+ [^ ]+ [0-9]+ [^ ]+ /, "", name)
	depth = $2 + base
}
depth == 1 {
	flush_record()
	open = 1
	id = name
	type = $3
	newest = $5
	active = 0
	files = bytes = sum = excluded = others = unreadable = 0
	marked = logged = "- 0 0"
}
{
	if ($1 == "U") unreadable++
	if ($5 + 0 <= now && $5 + 0 > active) active = $5 + 0
}
depth == 2 && name == marker { marked = $3 " " $4 " " $5 }
depth == 2 && name == "run.log" { logged = $3 " " $4 " " $5 }
depth > 1 && $3 == "f" && name ~ /^runtime_state\.db(-shm|-wal)?$/ && database != "yes" { excluded++; next }
{ if ($5 + 0 > newest + 0) newest = $5 }
# Times far off 1970 are not added up: what they sum to would be no number any more.
depth > 1 && $3 == "f" { files++; bytes += $4; if ($5 + 0 > 0 && $5 + 0 < 1e10) sum += int($5) }
depth > 1 && $3 != "f" && $3 != "d" { others++ }
END {
	flush_record()
	printf "E %s%c", status, 0
}
function flush_record() {
	if (!open) return
	printf "W %s %s %.6f %.0f %.0f %.0f %.0f %.0f %.0f %s %s %s%c", type, newest, active, files, bytes, sum, \
		excluded, others, unreadable, marked, logged, id, 0
}
