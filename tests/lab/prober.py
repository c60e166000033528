"""Asks URLs ten times a second, each in a thread of its own. Makes the file DIR/asking when each was asked once, and
ends when there is DIR/end; then DIR/seen says per URL how many questions there were, how many wrong answers, the first
of these, and the longest time, in seconds, that passed without a right one. usage: prober.py DIR URL…"""
import http.client
import json
import os
import ssl
import sys
import threading
import time
import urllib.parse

EVERY = 0.1
PATIENCE = 5
# Nobody came to end it: whoever started it is long gone.
LIMIT = 900


def wrong(url, context):
    """What is wrong with the answer, if anything. Each question takes a connection of its own."""
    connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=PATIENCE, context=context)
    try:
        connection.request("GET", url.path or "/")
        status = connection.getresponse().status
        return None if 200 <= status < 400 else f"answers {status}"
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    finally:
        connection.close()


def watch(text, row):
    url, context = urllib.parse.urlsplit(text), ssl.create_default_context()
    begun = right = time.monotonic()
    while not os.path.exists(f"{directory}/end") and right - begun < LIMIT:
        asked = time.monotonic()
        why = wrong(url, context)
        now = time.monotonic()
        row["asked"] += 1
        row["longest"] = max(row["longest"], now - right)
        if why is None:
            right = now
        else:
            row["failed"] += 1
            row["first"] = row["first"] or why
        if row["asked"] == 1:
            asking.wait()
        time.sleep(max(0.0, EVERY - (time.monotonic() - asked)))


directory, *urls = sys.argv[1:]
rows = {url: {"asked": 0, "failed": 0, "first": "", "longest": 0.0} for url in urls}
asking = threading.Barrier(len(urls) + 1)
threads = [threading.Thread(target=watch, args=(url, row)) for url, row in rows.items()]
for thread in threads:
    thread.start()
asking.wait()
open(f"{directory}/asking", "w").close()
for thread in threads:
    thread.join()
with open(f"{directory}/seen.new", "w", encoding="utf-8") as file:
    json.dump(rows, file)
os.rename(f"{directory}/seen.new", f"{directory}/seen")
