"""Makes workspaces whose runs ended an hour ago, of eight files each, the same every time. About a fifth of their
bytes does not compress. usage: workspaces.py ROOT COUNT BYTES"""
import os
import random
import sys
import time

root, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
then = int(time.time()) - 3600
FILES = ["run.log", "transcript.md", "trace.json", "session_policy.json", "work_products/report.md", "work_products/data.csv"]
MARKER = """{{
  "version": 1,
  "session_id": "{}",
  "state": "completed",
  "ready": true,
  "completed_at_epoch": {}.0
}}
"""


def text(some, length):
    lines = []
    while length > 0:
        line = f"2026-02-21 10:15:{some.randrange(60):02} step {some.getrandbits(32):08x} took {some.randrange(9999)} ms\n"
        lines.append(line[:length])
        length -= len(line)
    return "".join(lines).encode()


for number in range(count):
    name = f"session_20260221_{number:06}_ab12"
    some = random.Random(number)
    content = {file: text(some, size * 8 // 10 // len(FILES)) for file in FILES}
    content["work_products/chart.png"] = some.randbytes(size // 5)
    content["sync_ready.json"] = MARKER.format(name, then).encode()
    os.makedirs(f"{root}/{name}/work_products", exist_ok=True)
    for file, data in content.items():
        with open(f"{root}/{name}/{file}", "wb") as out:
            out.write(data)
        os.utime(f"{root}/{name}/{file}", (then, then))
    for folder in ("work_products", "."):
        os.utime(f"{root}/{name}/{folder}", (then, then))
