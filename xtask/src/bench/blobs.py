"""Makes 300 files of 1 MB that do not compress and are the same every time, in docs/blob of the working directory;
or, given a round, other content for one in a hundred of them. usage: blobs.py [ROUND]"""
import os
import random
import sys

COUNT, SIZE = 300, 1_000_000
number = int(sys.argv[1]) if len(sys.argv) > 1 else 0
os.makedirs("docs/blob", exist_ok=True)
for blob in range(COUNT):
    if number == 0 or blob % 100 == number % 100:
        with open(f"docs/blob/{blob:03}.bin", "wb") as file:
            file.write(random.Random(f"{number}/{blob}").randbytes(SIZE))
