"""Builds the C library with cargo and puts it into the wheel: the step that needs Rust.

REPLCORE_LIBRARY names a library that is built already. REPLCORE_WHEEL_PLATFORM names another
platform than this one, such as manylinux_2_28_x86_64 for a wheel that was built on so old a system.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = {"darwin": "libreplcore.dylib", "win32": "replcore.dll"}


class LibraryHook(BuildHookInterface):
    """Called by hatchling for a wheel."""

    def initialize(self, version, build_data):
        if version == "editable":
            name = "an installation that follows the sources has no library; install it, or set PYTHONPATH"
            raise RuntimeError(f"{name} to ffi/python/src and REPLCORE_LIBRARY to the library")
        file = FILES.get(sys.platform, "libreplcore.so")
        library = os.environ.get("REPLCORE_LIBRARY") or self.build_library(file)
        build_data["force_include"][str(library)] = f"replcore/{file}"
        build_data["pure_python"] = False
        platform = os.environ.get("REPLCORE_WHEEL_PLATFORM") or sysconfig.get_platform()
        # One wheel for every Python: nothing in it is built against one.
        build_data["tag"] = "py3-none-" + platform.replace("-", "_").replace(".", "_")

    def build_library(self, file):
        root = pathlib.Path(self.root).resolve().parent.parent
        if not (root / "ffi/Cargo.toml").is_file():
            raise RuntimeError("the library's sources are not here: build from the repository, or set "
                               "REPLCORE_LIBRARY to a library that is built already")
        if shutil.which("cargo") is None:
            raise RuntimeError("no cargo: install Rust from rustup.rs, or install a wheel of replcore")
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
        subprocess.run(
            ["cargo", "build", "--release", "--package", "replcore-ffi", "--target-dir", str(target)],
            cwd=root, check=True,
        )
        return target / "release" / file
