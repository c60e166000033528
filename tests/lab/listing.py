"""Prints what lies at the places of varied.py in the directory that is named: path, kind and content of each."""
import hashlib
import os
import stat
import sys

os.chdir(sys.argv[1])
paths = [name for name in os.listdir(b".") if name[:1] in b"#;-" or name == b"top level"]
for top, directories, files in os.walk(b"docs"):
    paths += [os.path.join(top, name) for name in directories + files]
lines = []
for path in sorted(paths):
    meta = os.lstat(path)
    if stat.S_ISLNK(meta.st_mode):
        what = b"link " + os.readlink(path)
    elif stat.S_ISDIR(meta.st_mode):
        what = b"directory"
    else:
        kind = b"program " if meta.st_mode & 0o100 else b"file "
        what = kind + hashlib.sha256(open(path, "rb").read()).hexdigest().encode()
    lines.append(path + b"\t" + what)
sys.stdout.buffer.write(b"\n".join(lines))
