"""How fast a leaf of the package `replcore` posts: `python_leaf.py BROKER FOLDER MESSAGES`. The leaf is named as its folder.

Bodies of 128 bytes in batches of 1,000, each batch on disk before the next is posted, while the hub takes them.
"""

import asyncio
import json
import pathlib
import sys
import time

import replcore

BATCH = 1000
BODY = b"x" * 128


async def main(broker: str, folder: str, messages: int) -> None:
    async with replcore.Leaf(pathlib.Path(folder).name, broker=broker, path=folder) as leaf:
        await leaf.wait_connected()
        started, cpu = time.monotonic(), time.process_time()
        for _ in range(0, messages, BATCH):
            await leaf.post_many([BODY] * BATCH, type="bench")
        posted = time.monotonic() - started
        await leaf.wait_drained()
        taken, cpu = time.monotonic() - started, time.process_time() - cpu
    figures = {
        "posted_per_s": messages / posted,
        "taken_by_the_hub_per_s": messages / taken,
        "cpu_s_per_million": cpu / messages * 1e6,
    }
    print(json.dumps({"what": "Python: a leaf posts in batches of 1,000", "figures": figures}))


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
