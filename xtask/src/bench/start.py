"""Restarts units on the VPS, and says when the command ended, when all were healthy, and when each had also lived for so
long: seconds after the restart was asked for, as JSON. usage: start.py SECONDS UNIT…"""
import http.client
import json
import sqlite3
import subprocess
import sys
import time

stable, units = float(sys.argv[1]), sys.argv[2:]
DATABASE = "file:/opt/universal_agent/AGENT_RUN_WORKSPACES/vp_state.db?mode=ro"
URLS = {
    "universal-agent-gateway": (8002, "/api/v1/health"),
    "universal-agent-api": (8001, "/api/health"),
    "universal-agent-webui": (3000, "/"),
}


def show(unit):
    words = ["systemctl", "show", "--property=ActiveState,ExecMainStartTimestampMonotonic", unit]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    fields = dict(line.split("=", 1) for line in lines)
    return fields["ActiveState"], int(fields["ExecMainStartTimestampMonotonic"]) / 1e6


def healthy(unit):
    name = unit.removesuffix(".service")
    if name in URLS:
        port, path = URLS[name]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status < 400
        except OSError:
            return False
        finally:
            connection.close()
    if "@" in name:
        query = """SELECT count(*) FROM vp_sessions WHERE vp_id = ? AND status IN ('idle', 'active')
            AND CAST(strftime('%s', updated_at) AS INTEGER) >= ?"""
        database = sqlite3.connect(DATABASE, uri=True)
        try:
            return database.execute(query, (name.split("@")[1], wall)).fetchone()[0] == 1
        except sqlite3.OperationalError:
            return False
        finally:
            database.close()
    return True


wall = int(time.time())
begun = time.monotonic()
subprocess.run(["systemctl", "restart", *units], check=True)
restarted = time.monotonic()
waiting = units
while waiting:
    if time.monotonic() - begun > 60:
        sys.exit(f"not healthy: {waiting}")
    waiting = [unit for unit in waiting if show(unit)[0] != "active" or not healthy(unit)]
    if waiting:
        time.sleep(0.02)
answered = time.monotonic()
lived = max(show(unit)[1] for unit in units) + stable
json.dump(
    {"restart": restarted - begun, "healthy": answered - begun, "proved": max(lived, answered) - begun}, sys.stdout
)
