"""A program that is killed at any moment: killed_leaf.py BROKER FOLDER FILE POSTED WANTED

Posts "1" to POSTED, and keeps what it receives in FILE, a line each: number and body.
"""

import asyncio
import pathlib
import sys

import replcore


async def main(broker, folder, file, posted, wanted):
    lines = pathlib.Path(file)
    with lines.open("a+b") as out:
        out.seek(0)
        whole = out.read()
        whole = whole[: whole.rfind(b"\n") + 1]
        out.truncate(len(whole))
        last = int(whole.split(b"\n")[-2].split()[0]) if whole else None
        async with replcore.Leaf(
            "py-1", broker=broker, path=folder, retry_ms_min=20, retry_ms_max=200, segment_bytes=20_000
        ) as leaf:
            posting = asyncio.ensure_future(post(leaf, int(posted)))
            received = 0 if last is None else last + 1
            if received < int(wanted):
                async for message in leaf.messages(after=last):
                    out.write(b"%d %s\n" % (message.number, message.body))
                    out.flush()
                    if message.number + 1 == int(wanted):
                        break
            await posting


async def post(leaf, count):
    done = leaf.status().posted
    while done < count:
        more = min(20, count - done)
        await leaf.post_many([b"%d" % n for n in range(done + 1, done + more + 1)], type="sale")
        done += more
        await asyncio.sleep(0.002)
    await leaf.wait_drained()


asyncio.run(main(*sys.argv[1:]))
