"""The wheel: built, installed where there is no compiler, used."""

import os
import pathlib
import subprocess
import sys
import unittest

from support import Case

PACKAGE = pathlib.Path(__file__).resolve().parent.parent


def left_out(reason):
    path = os.environ.get("REPLCORE_LEFT_OUT")
    if path:
        with open(path, "a") as out:
            out.write(f"the wheel of the Python package: {reason}\n")
    raise unittest.SkipTest(reason)


class PackageTest(Case):
    def test_a_wheel_installs_without_a_compiler_and_works(self):
        environment = self.folder / "venv"
        made = subprocess.run([sys.executable, "-m", "venv", environment], capture_output=True)
        if made.returncode:
            left_out("python3-venv")
        python = environment / "bin/python"
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        built = subprocess.run(
            [*pip, "wheel", "--no-deps", "--wheel-dir", self.folder, PACKAGE], capture_output=True, text=True
        )
        if "No matching distribution found for hatchling" in built.stderr:
            left_out("a package index with hatchling")
        self.assertEqual(built.returncode, 0, built.stderr)
        (wheel,) = self.folder.glob("*.whl")
        self.assertRegex(wheel.name, r"^replcore-[0-9.]+-py3-none-(linux|macosx)_")
        bare = {"PATH": "", "HOME": str(self.folder)}
        subprocess.run([*pip, "install", "--no-index", wheel], check=True, env=bare)
        program = (
            "import replcore, pathlib; from replcore import machine;"
            "folder = pathlib.Path(replcore.__file__).parent; assert (folder / 'py.typed').exists();"
            "leaf = machine.Leaf('a', instance=1, epoch=1); leaf.handle_timeout(0);"
            "print([output.kind for output in leaf.outputs()], replcore.__version__)"
        )
        out = subprocess.run([python, "-c", program], check=True, env=bare, capture_output=True, text=True)
        self.assertRegex(out.stdout, r"^\[13\] [0-9.]+")


if __name__ == "__main__":
    unittest.main()
