"""Writes files of every kind and name that git and a line-oriented list can hold: below docs/varied, and at the top."""
import os
import random

generator = random.Random(3000)
names = [
    "plain", "two words", " leading blank", "trailing blank ", "it's", 'say "hi"', "-rf", "--delete", "grün",
    "日本語", "🦀", "$(touch pwned)", "`touch pwned`", ";touch pwned;", "a&b", "star*", "?", "[x]", "back\\slash",
    "back\\nslash", "#hash", "~", "percent%41", "host:file", "comma,", "{a,b}", "!bang", "CAPS", "caps", "...",
    "%(mode)s", ".hidden", "x" * 200, "ends with: FAILED", "=",
]


def write(path, mode=0o644):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as file:
        file.write(generator.randbytes(generator.randrange(4096)))
    os.chmod(path, mode)


for number in range(90):
    depth = [names[(number * 7 + step * 3) % len(names)] for step in range(number % 15)]
    place = os.path.join("docs/varied", "%02d" % number, *(part[:60] for part in depth))
    for name in names:
        write(os.path.join(place, name))
for name in ["#top", ";top", "-top", "top level"]:
    write(name)
write("docs/varied/run me.sh", 0o755)
os.symlink("run me.sh", "docs/varied/a link")
os.symlink("/nowhere at all", "docs/varied/a dangling link")
open("docs/varied/empty", "w").close()
