"""Times commands on the lab's laptop: JSON in, JSON out. Alternates between the rows, so that what slows the machine
down slows all of them. What a row wants before each run is not timed."""
import json
import os
import subprocess
import sys
import time


def once(commands):
    """Seconds, the last exit code, and the most memory of any process in KiB."""
    start = time.perf_counter()
    peak = 0
    for command in commands:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        peak = max(peak, usage.ru_maxrss)
    return time.perf_counter() - start, process.returncode, peak


job = json.load(sys.stdin)
before = job.get("before", {})
rows = {name: {"seconds": [], "codes": set(), "peak_kib": 0} for name in job["rows"]}
for _ in range(job["runs"]):
    for name, commands in job["rows"].items():
        if name in before:
            subprocess.run(before[name], check=True)
        seconds, code, peak = once(commands)
        row = rows[name]
        row["seconds"].append(seconds)
        row["codes"].add(code)
        row["peak_kib"] = max(row["peak_kib"], peak)
for row in rows.values():
    row.update(seconds=sorted(row["seconds"]), codes=sorted(row["codes"]))
json.dump(rows, sys.stdout)
