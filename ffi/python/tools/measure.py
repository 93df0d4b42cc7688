#!/usr/bin/env python3
"""How many messages a second a Python leaf posts to the real hub: tools/measure.py [MESSAGES [BYTES]]

REPLCORE_PROGRAM names the daemon and REPLCORE_LIBRARY the library, both built with --release.
"""

import asyncio
import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HERE / "src"), str(HERE / "tests")]

from support import Hub  # noqa: E402

import replcore  # noqa: E402


async def measure(hub, folder, messages, size):
    async with replcore.Leaf("measured", broker=hub.address, path=folder / "leaf") as leaf:
        await leaf.wait_connected()
        batch = [bytes(size)] * 1000
        started, processor = time.perf_counter(), time.process_time()
        for _ in range(messages // len(batch)):
            await leaf.post_many(batch, type="measured")
        posted = time.perf_counter() - started
        await leaf.wait_drained()
        drained = time.perf_counter() - started
        processor = time.process_time() - processor
        print(f"{messages} messages of {size} bytes, in batches of {len(batch)}")
        print(f"posted (on disk here)     {messages / posted:10.0f} /s")
        print(f"and stored at the hub     {messages / drained:10.0f} /s")
        print(f"processor time of Python  {1e6 * processor / messages:10.1f} us a message")


def main():
    messages, size = [int(text) for text in [*sys.argv[1:], *["200000", "100"][len(sys.argv) - 1 :]]]
    with tempfile.TemporaryDirectory(prefix="replcore-measure-") as name:
        hub = Hub(pathlib.Path(name) / "hub")
        try:
            asyncio.run(measure(hub, pathlib.Path(name), messages, size))
        finally:
            hub.close()


if __name__ == "__main__":
    main()
