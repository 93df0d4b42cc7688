"""The asyncio leaf against the real daemon."""

import asyncio
import os
import ssl
import subprocess
import time
import unittest

from support import PATIENCE, PROGRAM, Case, bodies

import replcore


class LeafTest(Case):
    def leaf(self, hub, name="py-1", **settings):
        address = hub if isinstance(hub, str) else hub.address
        return replcore.Leaf(
            name, broker=address, path=self.folder / name, retry_ms_min=20, retry_ms_max=200, **settings
        )

    async def first(self, leaf, count, **how):
        found = []
        async for message in leaf.messages(**how):
            found.append(message)
            if len(found) == count:
                return found

    def test_what_is_posted_arrives_with_all_its_parts(self):
        hub = self.hub()

        async def run():
            async with self.leaf(hub) as leaf:
                return await leaf.post(
                    b"21.5", type="reading", key=b"room", message_class=1, content_type="text/plain",
                    headers={"unit": b"C"}, idempotency_key=b"first", expires=time.time() + 3600,
                ), await leaf.wait_drained()

        identity, _ = self.run_async(run())
        (message,) = hub.messages()
        self.assertEqual(message["id"], identity)
        self.assertEqual((message["type"], message["key"], message["body"]), ("reading", "room", "21.5"))
        self.assertEqual((message["class"], message["content_type"]), (1, "text/plain"))
        self.assertEqual(message["headers"], {"unit": "C"})

    def test_a_leaf_with_a_certificate_is_at_a_hub_with_tls(self):
        authority = self.folder / "ca"
        for arguments in (["init", authority], ["issue", authority, "hub"], ["issue", authority, "py-1"]):
            subprocess.run([PROGRAM, "ca", *arguments], check=True, capture_output=True, timeout=PATIENCE)
        ca, cert, key = (str(authority / file) for file in ("ca.pem", "hub.pem", "hub.key"))
        hub = self.hub("--tls-ca", ca, "--tls-cert", cert, "--tls-key", key)
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(authority / "py-1.pem", authority / "py-1.key")

        async def run():
            async with self.leaf(hub, ssl=context, server_hostname="localhost") as leaf:
                await leaf.post(b"1")
                await leaf.wait_drained()
                return leaf.status().hub

        self.assertEqual(self.run_async(run()), "hub")

    def test_messages_of_the_hub_arrive_in_order_and_only_once_across_lives(self):
        hub = self.hub()

        async def life(count):
            async with self.leaf(hub) as leaf:
                if count is None:
                    # Registers, so that the hub has a queue for it.
                    return await leaf.wait_connected()
                found = await self.first(leaf, count, acknowledge=False)
                leaf.acknowledge(found[-1])
                return [message.body.decode() for message in found]

        self.run_async(life(None))
        sent = [f"command {n}" for n in range(100)]
        hub.post(sent, "--to", "py-1")
        self.assertEqual(self.run_async(life(40)), sent[:40])
        self.assertEqual(self.run_async(life(60)), sent[40:])

    def test_what_the_program_has_not_acknowledged_comes_again(self):
        hub = self.hub()

        async def run():
            async with self.leaf(hub) as leaf:
                await leaf.wait_connected()
                await asyncio.get_running_loop().run_in_executor(None, hub.post, ["a", "b", "c"])
                self.assertEqual([m.body for m in await self.first(leaf, 3)], [b"a", b"b", b"c"])
            async with self.leaf(hub) as leaf:
                # The loop asked for "b" and "c", so that "a" and "b" were done with.
                self.assertEqual([m.body for m in await self.first(leaf, 1)], [b"c"])
                # A program that kept the number with its effect says where it is.
                await asyncio.get_running_loop().run_in_executor(None, hub.post, ["d"])
                (message,) = await self.first(leaf, 1, after=2)
                self.assertEqual((message.number, message.body, message.type), (3, b"d", "command"))

        self.run_async(run())

    def test_posts_are_kept_while_the_hub_is_away_and_go_when_it_is_back(self):
        hub = self.hub()
        hub.kill()

        async def run():
            async with self.leaf(hub) as leaf:
                await leaf.post_many([b"%d" % n for n in range(1000)], type="sale")
                self.assertEqual(leaf.status().queued_messages, 1000)
                self.assertFalse(leaf.is_connected())
            async with self.leaf(hub) as leaf:
                self.assertEqual(leaf.status().queued_messages, 1000)
                await leaf.post(b"1000", type="sale")
                await asyncio.get_running_loop().run_in_executor(None, hub.start)
                await leaf.wait_drained()

        self.run_async(run())
        self.assertEqual(bodies(hub.messages(), "sale"), [str(n) for n in range(1001)])

    def test_large_messages_travel_in_parts_both_ways(self):
        hub = self.hub()
        large = [os.urandom(300_000).hex() for _ in range(3)]

        async def run():
            async with self.leaf(hub) as leaf:
                await leaf.wait_connected()
                await leaf.post_many([one.encode() for one in large], type="up")
                await leaf.wait_drained()
                await asyncio.get_running_loop().run_in_executor(None, hub.post, large)
                return [message.body.decode() for message in await self.first(leaf, 3)]

        self.assertEqual(self.run_async(run()), large)
        self.assertEqual(bodies(hub.messages(), "up"), large)

    def test_posts_of_many_tasks_share_commits_and_all_arrive(self):
        hub = self.hub()

        async def run():
            async with self.leaf(hub) as leaf:
                ids = await asyncio.gather(*(leaf.post(b"%d" % n, type="sale") for n in range(500)))
                await leaf.wait_drained()
                return ids

        ids = self.run_async(run())
        messages = hub.messages()
        self.assertEqual(sorted(message["id"] for message in messages), sorted(ids))
        self.assertEqual(sorted(map(int, bodies(messages))), list(range(500)))

    def test_a_post_with_a_known_key_is_the_same_message_also_after_a_restart(self):
        async def post(leaf):
            return await leaf.post(b"x", idempotency_key=b"order 7")

        async def run():
            async with self.leaf("127.0.0.1:1") as leaf:
                first = await post(leaf)
                self.assertEqual(await post(leaf), first)
            async with self.leaf("127.0.0.1:1") as leaf:
                self.assertEqual(await post(leaf), first)
                self.assertNotEqual(await leaf.post(b"x", idempotency_key=b"order 8"), first)
                self.assertEqual(leaf.status().posted, 2)

        self.run_async(run())

    def test_at_the_limit_of_the_queue_a_post_is_refused_with_the_remedy(self):
        async def run():
            async with self.leaf("127.0.0.1:1", queue_messages_max=10) as leaf:
                with self.assertRaisesRegex(replcore.QueueFull, "queue_messages_max"):
                    await leaf.post_many([b"x"] * 11)
                self.assertEqual(leaf.status().queued_messages, 10)
                with self.assertRaises(replcore.QueueFull):
                    await leaf.post(b"x")

        self.run_async(run())

    def test_a_reader_that_does_not_read_leaves_the_messages_at_the_hub(self):
        hub = self.hub()

        async def run():
            async with self.leaf(hub, received_messages_max=50, window_bytes=4096) as leaf:
                await leaf.wait_connected()
                sent = ["x" * 1000 + str(n) for n in range(300)]
                await asyncio.get_running_loop().run_in_executor(None, hub.post, sent)
                await leaf._wait_until(lambda: leaf.status().received_messages >= 50)
                await asyncio.sleep(0.3)
                self.assertLess(leaf.status().received_messages, 100)
                found = await self.first(leaf, 300)
                self.assertEqual([message.body.decode() for message in found], sent)

        self.run_async(run())

    def test_bad_messages_are_refused_and_say_what_is_wrong(self):
        async def run():
            async with self.leaf("127.0.0.1:1") as leaf:
                for wrong, said in [
                    ({"body": "text"}, "give bytes"),
                    ({"body": b"", "type": "t" * 256}, "too long"),
                    ({"body": b"", "type": "a\0b"}, "zero byte"),
                    ({"body": b"", "message_class": 4}, "0, 1, 2 or 3"),
                    ({"body": b"", "to": ["q"] * 33}, "out of range"),
                    ({"body": b"x" * (17 << 20)}, "message_bytes_max"),
                ]:
                    with self.assertRaisesRegex(replcore.InvalidMessage, said):
                        await leaf.post(**wrong)
                await leaf.post(b"good")
                self.assertEqual(leaf.status().posted, 1)

        self.run_async(run())

    def test_wrong_settings_and_wrong_use_are_told(self):
        with self.assertRaisesRegex(ValueError, "host:port"):
            replcore.Leaf("a", broker="localhost", path=self.folder)
        with self.assertRaisesRegex(replcore.StatusError, "not a name"):
            replcore.Leaf("a b", broker="localhost:1", path=self.folder)

        async def run():
            with self.assertRaisesRegex(replcore.Closed, "async with"):
                await self.leaf("127.0.0.1:1").post(b"x")
            with self.assertRaisesRegex(TypeError, "no setting 'keepalive'"):
                await self.leaf("127.0.0.1:1", "c", keepalive=5).start()
            async with self.leaf("127.0.0.1:1"):
                with self.assertRaisesRegex(replcore.LogError, "in use by another leaf"):
                    await self.leaf("127.0.0.1:1").start()
            with self.assertRaisesRegex(replcore.LogError, "folder of another leaf"):
                await replcore.Leaf("other", broker="127.0.0.1:1", path=self.folder / "py-1").start()

        self.run_async(run())

    def test_a_set_back_folder_loses_and_doubles_nothing(self):
        """A leaf that is set back to an older copy of its folder takes a new epoch."""
        import shutil

        hub = self.hub()

        async def post(bodies_):
            async with self.leaf(hub) as leaf:
                await leaf.wait_connected()
                await leaf.post_many(bodies_, type="sale")
                await leaf.wait_drained()

        self.run_async(post([b"1", b"2"]))
        shutil.copytree(self.folder / "py-1", self.folder / "copy")
        self.run_async(post([b"3", b"4", b"5"]))
        shutil.rmtree(self.folder / "py-1")
        shutil.copytree(self.folder / "copy", self.folder / "py-1")
        self.run_async(post([b"6", b"7"]))
        self.assertEqual(bodies(hub.messages(), "sale"), ["1", "2", "3", "4", "5", "6", "7"])

    def test_a_hub_that_is_killed_again_and_again_gets_everything_once(self):
        hub = self.hub()

        async def run():
            async with self.leaf(hub) as leaf:
                in_thread = asyncio.get_running_loop().run_in_executor
                for life in range(5):
                    await leaf.post_many([b"%d" % (1000 * life + n) for n in range(1000)], type="sale")
                    await in_thread(None, hub.kill)
                    await in_thread(None, hub.start)
                await leaf.wait_drained()

        self.run_async(run())
        self.assertEqual(bodies(hub.messages(), "sale"), [str(n) for n in range(5000)])

    def test_a_closed_leaf_ends_its_readers(self):
        async def run():
            leaf = self.leaf("127.0.0.1:1")
            await leaf.start()
            reader = asyncio.ensure_future(self.first(leaf, 1))
            await asyncio.sleep(0)
            await leaf.close()
            self.assertIsNone(await asyncio.wait_for(reader, PATIENCE))
            with self.assertRaises(replcore.Closed):
                await leaf.post(b"x")

        self.run_async(run())


if __name__ == "__main__":
    unittest.main()
