# One record per workspace from what find says of everything in it, NUL-separated both ways.
# In: "X <status>", or "<R|U> <depth> <type> <size> <mtime> <name>"; a name may be a path where it is a start of find.
# With base = 0 the root is listed: what is at depth 1 is a workspace, or a directory of workspaces, if `nested`, an extended
# regular expression, matches its name. What is in that has an id of two parts. With base = 1 each start is a workspace.
# mawk writes large numbers in short, so they are printed with a format of their own.
BEGIN {
	RS = "\0"
	nested = "^(" nested ")$"
}
$1 == "X" { status = $2; next }
{
	name = $0
	sub(/^[RU] [0-9]+ [^ ]+ [0-9]+ [^ ]+ /, "", name)
	path = name
	while ((slash = index(name, "/")) > 0) name = substr(name, slash + 1)
	depth = $2 + base
}
depth == 1 {
	flush_record()
	above = 0
	if (base) {
		start_record(substr(path, 3))
	} else if ($1 == "R" && $3 == "d" && name ~ nested && !(name ~ hidden())) {
		container = name
		above = 1
	} else {
		start_record(name)
	}
}
above && depth == 2 {
	flush_record()
	if (!(name ~ hidden())) start_record(container "/" name)
}
# Of the directory of workspaces itself, and of what is hidden in it, there is nothing to say.
!open { next }
{
	depth -= above
	if ($1 == "U") unreadable++
	if ($5 + 0 <= now && $5 + 0 > active) active = $5 + 0
}
depth == 2 {
	if (name == marker) marked = $3 " " $4 " " $5
	if (name == "run.log") logged = $3 " " $4 " " $5
	twin = mission && $3 == "d" && name == leaf
}
# A worker may have its mission work, and leave its marker, in a directory of the mission's name in that of the mission.
depth == 3 && twin && name == marker { inner = $3 " " $4 " " $5 }
depth > 1 && $3 == "f" && name ~ /^runtime_state\.db(-shm|-wal)?$/ && database != "yes" { excluded++; next }
{ if ($5 + 0 > newest + 0) newest = $5 }
# Times far off 1970 are not added up: what they sum to would be no number any more.
depth > 1 && $3 == "f" {
	files++
	bytes += $4
	if ($5 + 0 > 0 && $5 + 0 < 1e10) {
		sum += int($5)
		dot = index($5, ".")
		micros = int($5) * 1000000 + substr($5, dot + 1, 6)
		if (micros > last) last = micros
	}
}
depth > 1 && $3 != "f" && $3 != "d" { others++ }
END {
	flush_record()
	printf "E %s%c", status, 0
}
function hidden() {
	return "^([.]|remote_vps_)"
}
function start_record(new) {
	open = 1
	id = new
	leaf = name
	# A start that was moved away has another path, but is still what it was.
	mission = deep == "yes" || index(id, "/") > 0
	type = $3
	newest = $5
	active = twin = 0
	files = bytes = sum = last = excluded = others = unreadable = 0
	marked = inner = logged = "- 0 0"
}
function flush_record(place, times, inside) {
	if (!open) return
	open = 0
	# Of two markers the later one is of the later run.
	split(marked, times)
	split(inner, inside)
	place = inside[1] != "-" && (times[1] == "-" || inside[3] + 0 > times[3] + 0) ? 2 : 1
	printf "W %s %s %.6f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %d %s %s %s%c", type, newest, active, files, bytes, sum, last, \
		excluded, others, unreadable, place, place == 2 ? inner : marked, logged, anonymous == "yes" ? "" : id, 0
}
