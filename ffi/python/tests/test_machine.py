"""The machines themselves, and what keeps the package true to the header."""

import ctypes
import inspect
import pathlib
import pydoc
import subprocess
import sys
import unittest

import replcore
from replcore import machine
from replcore.machine import OutputKind

TOOLS = pathlib.Path(__file__).resolve().parent.parent / "tools"


class MachineTest(unittest.TestCase):
    def test_a_leaf_dials_greets_and_counts_noise(self):
        leaf = machine.Leaf("py-1", instance=1, epoch=1 << 16, seed=7)
        leaf.handle_timeout(0)
        self.assertEqual([output.kind for output in leaf.outputs()], [OutputKind.DIAL])
        self.assertEqual(leaf.wake_us, machine.NEVER)
        leaf.handle_link_up(1, 0, 0)
        leaf.handle_writable(1, 0, 1 << 20)
        frames = [leaf.payload(output) for output in leaf.outputs() if output.kind == OutputKind.SEND]
        self.assertEqual(len(frames), 1)
        self.assertGreater(leaf.wake_us, 1)
        self.assertEqual(leaf.handle_recv(2, 0, b"\xff" * 64), 0)
        self.assertEqual([output.kind for output in leaf.outputs()], [OutputKind.HANGUP])
        self.assertEqual(leaf.stats()["bad_length"], 1)
        self.assertEqual((leaf.is_connected(), leaf.peer()), (False, ""))

    def test_wrong_calls_raise_and_change_nothing(self):
        with self.assertRaisesRegex(replcore.StatusError, "not a name"):
            machine.Leaf("a b", instance=1, epoch=1)
        with self.assertRaisesRegex(TypeError, "no setting 'lease'"):
            machine.Leaf("a", instance=1, epoch=1, lease=3)
        with self.assertRaises(ValueError):
            machine.Leaf("a\0b", instance=1, epoch=1)
        leaf = machine.Leaf("a", instance=1, epoch=1)
        with self.assertRaises(replcore.StatusError) as caught:
            leaf.handle_link_up(0, 0, transport=9)
        self.assertEqual(caught.exception.status, machine.Status.VALUE)
        with self.assertRaises(ctypes.ArgumentError):
            leaf.handle_timeout("now")

    def test_the_interface_is_what_the_header_says(self):
        done = subprocess.run([sys.executable, TOOLS / "make_abi.py", "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr + "run ffi/python/tools/make_abi.py")

    def test_everything_public_is_explained(self):
        self.assertIn("async with replcore.Leaf", pydoc.render_doc(replcore))
        for module in (replcore, machine):
            for name in module.__all__:
                one = getattr(module, name)
                if inspect.isclass(one) or inspect.isfunction(one):
                    self.assertTrue(inspect.getdoc(one), name)
                for method, function in inspect.getmembers(one, inspect.isfunction):
                    if not method.startswith("_") and inspect.isclass(one):
                        self.assertTrue(inspect.getdoc(function), f"{name}.{method}")


if __name__ == "__main__":
    unittest.main()
