"""What the tests need: a hub as a process, folders, and patience."""

import asyncio
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

PATIENCE = 60.0
"""Seconds that anything may take on a busy machine."""

PROGRAM = os.environ.get("REPLCORE_PROGRAM", "replcore")
HERE = pathlib.Path(__file__).resolve().parent


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def eventually(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


class Hub:
    """The real daemon."""

    def __init__(self, folder, *options):
        self.address = f"127.0.0.1:{free_port()}"
        self._command = [PROGRAM, "hub", "--data", str(folder), "--listen", self.address, *options]
        self._log = open(folder.with_suffix(".out"), "a")
        self.start()

    def start(self):
        self._process = subprocess.Popen(self._command, stdout=self._log, stderr=self._log)
        eventually("the hub answers", self._answers)

    def _answers(self):
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), 1).close()
            return True
        except OSError:
            assert self._process.poll() is None, "the hub has ended"
            return False

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def close(self):
        self.kill()
        self._log.close()

    def messages(self):
        """All that it holds, in its order."""
        out = subprocess.run(
            [PROGRAM, "read", self.address, "--json"], check=True, capture_output=True, text=True,
            timeout=PATIENCE,
        ).stdout
        return [json.loads(line) for line in out.splitlines()]

    def post(self, bodies, *options):
        """Posts a message for each body, each once however often it is called."""
        subprocess.run(
            [PROGRAM, "post", self.address, "--type", "command", *options], check=True,
            input="".join(body + "\n" for body in bodies), text=True, capture_output=True, timeout=PATIENCE,
        )


class Case(unittest.TestCase):
    """A test with a folder of its own, and coroutines with a deadline."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="replcore-python-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def hub(self, *options):
        hub = Hub(self.folder / "hub", *options)
        self.addCleanup(hub.close)
        return hub

    def run_async(self, coroutine):
        async def limited():
            return await asyncio.wait_for(coroutine, 2 * PATIENCE)

        return asyncio.run(limited())

    def child(self, *arguments):
        """A Python process of this folder's scripts."""
        process = subprocess.Popen([sys.executable, str(HERE / arguments[0]), *map(str, arguments[1:])])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process


def bodies(messages, message_type=None):
    return [one["body"] for one in messages if message_type in (None, one.get("type"))]
