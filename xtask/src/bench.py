"""Times commands on the lab's laptop: JSON in, JSON out. Alternates between the rows, so that what slows the machine
down slows all of them."""
import json
import subprocess
import sys
import time


def once(commands):
    start = time.perf_counter()
    codes = [
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode
        for command in commands
    ]
    return time.perf_counter() - start, codes[-1]


job = json.load(sys.stdin)
times = {name: [] for name in job["rows"]}
codes = {name: set() for name in job["rows"]}
for _ in range(job["runs"]):
    for name, commands in job["rows"].items():
        seconds, code = once(commands)
        times[name].append(seconds)
        codes[name].add(code)
json.dump({name: {"seconds": sorted(times[name]), "codes": sorted(codes[name])} for name in times}, sys.stdout)
