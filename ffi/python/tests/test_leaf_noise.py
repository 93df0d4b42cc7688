"""A leaf on a line without TLS that only it and the real daemon can read."""

import asyncio
import subprocess
import unittest

from support import PATIENCE, PROGRAM, Case, bodies, free_port

import replcore


class LeafNoiseTest(Case):
    def key(self, *arguments):
        done = subprocess.run(
            [PROGRAM, "key", *map(str, arguments)], check=True, capture_output=True, text=True, timeout=PATIENCE)
        return done.stdout.strip()

    def hub(self):
        self.line = f"noise:127.0.0.1:{free_port()}"
        return super().hub("--listen", self.line, "--noise-keys", str(self.folder / "hub.keys"))

    def leaf(self, name, **settings):
        keys = {"noise_keys": self.folder / f"{name}.keys", **settings}
        return replcore.Leaf(
            name, broker=self.line, path=self.folder / name, retry_ms_min=20, retry_ms_max=200,
            retransmit_ms=100, **keys)

    def share(self, name):
        self.key("share", self.folder / "hub.keys", name, self.folder / f"{name}.keys")

    def test_messages_go_both_ways_whatever_their_length_and_whoever_is_killed(self):
        """HS-33: with a shared key, and with pairs."""
        self.share("py-1")
        public = {name: self.key("make", self.folder / f"{name}.keys") for name in ("own", "py-2")}
        with open(self.folder / "hub.keys", "a") as keys:
            keys.write((self.folder / "own.keys").read_text())
        self.key("add", self.folder / "hub.keys", "py-2", public["py-2"])
        self.key("add", self.folder / "py-2.keys", "hub", public["own"])
        hub = self.hub()
        long = "x" * 200_000
        expected = []

        async def run(name):
            async with self.leaf(name) as leaf:
                await leaf.post_many([b"%d" % n for n in range(500)], type=name)
                await leaf.post(long.encode(), type=name)
                await leaf.wait_drained()
                hub.post([f"to {name}", long], "--to", name)
                found = []
                async for message in leaf.messages():
                    found.append(message.body.decode())
                    if len(found) == 2:
                        break
                self.assertEqual(found, [f"to {name}", long])
                hub.kill()
                await leaf.post(b"while it was away", type=name)
                hub.start()
                await leaf.wait_drained()
            expected.append([str(n) for n in range(500)] + [long, "while it was away"])

        for name in ("py-1", "py-2"):
            self.run_async(run(name))
            self.assertEqual(bodies(hub.messages(), name), expected.pop())

    def test_a_wrong_key_is_told_and_comes_to_nothing(self):
        self.share("py-1")
        self.share("py-2")
        self.hub()
        (self.folder / "py-1.keys").write_text((self.folder / "py-2.keys").read_text())

        async def run():
            async with self.leaf("py-1") as leaf:
                with self.assertLogs("replcore", "WARNING") as logs:
                    while not logs.output:
                        await asyncio.sleep(0.01)
                self.assertFalse(leaf.is_connected())
                return logs.output[0]

        self.assertRegex(self.run_async(run()), "another key|see whether it has a key of this leaf")

    def test_files_of_keys_that_cannot_be_used_are_told_without_a_key(self):
        self.line = "noise:127.0.0.1:1"
        key, keys = "0123456789abcdef" * 4, self.folder / "py-1.keys"
        keys.touch(0o600)
        for text, said in [
            ("", "keys of no hub"),
            (f"a psk {key}\nb psk {key}", "keys of a, b"),
            (f"hub public {key}", "no private key of this leaf"),
            (f"hub psk {key[1:]}", "py-1.keys:1: a key has 64 hexadecimal digits"),
            (f"# x\nhub psk {key}\nhub psk {key}", "py-1.keys:3: a second key of hub"),
            (f"h b psk {key}", "not a key"),
        ]:
            keys.write_text(text)
            with self.subTest(said), self.assertRaisesRegex(replcore.ReplcoreError, said) as raised:
                self.leaf("py-1")
            self.assertNotIn(key[1:], str(raised.exception))
        keys.chmod(0o640)
        with self.assertRaisesRegex(replcore.ReplcoreError, "mode 640.*chmod 600"):
            self.leaf("py-1")
        with self.assertRaisesRegex(replcore.ReplcoreError, "go together"):
            self.leaf("py-1", noise_keys=None)


if __name__ == "__main__":
    unittest.main()
