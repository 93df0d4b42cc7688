#!/usr/bin/env python3
"""Makes src/replcore/_abi.py of include/replcore.h: tools/make_abi.py [--check]

The header is the truth; a test keeps the two the same. It reads the one form in which cbindgen
writes headers, not C.
"""
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent.parent
HEADER = HERE / "../../include/replcore.h"
MODULE = HERE / "src/replcore/_abi.py"

HEAD = '''"""The C interface as ctypes see it. Made of include/replcore.h by tools/make_abi.py; do not edit.

What the names mean is said in the header.
"""
# fmt: off
import ctypes
import enum
from typing import Any

'''

SCALARS = {
    "void": "None",
    "char": "ctypes.c_char",
    "uint8_t": "ctypes.c_uint8",
    "uint16_t": "ctypes.c_uint16",
    "uint32_t": "ctypes.c_uint32",
    "int32_t": "ctypes.c_int32",
    "uint64_t": "ctypes.c_uint64",
    "size_t": "ctypes.c_size_t",
    "replcore_status": "ctypes.c_int32",
    "replcore_role": "ctypes.c_int32",
}


def argument_type(declaration):
    """The ctypes type of a parameter or field, given as `const uint8_t *data`; and its name."""
    declaration = declaration.replace("const ", "").replace("struct ", "").strip()
    kind, stars, name, _, count = re.fullmatch(
        r"(\w+)\s+(\**)(?:const\s*\**)?(\w*)(\[(\w+)\])?", declaration.replace("* *", "**")
    ).groups()
    if stars:
        return name, "ctypes.c_void_p"
    python = SCALARS.get(kind, kind)
    return name, f"{python} * {count.removeprefix('REPLCORE_')}" if count else python


def field_type(declaration):
    name, python = argument_type(declaration)
    plain = declaration.strip()
    if re.match(r"const (char|uint8_t) \*(?!const)", plain):
        python = "ctypes.c_char_p"
    return name, python


def class_name(name):
    return "".join(part.capitalize() for part in name.removeprefix("replcore_").split("_"))


def comment(text):
    lines = [line.strip() for line in text.strip().splitlines()]
    return " ".join(line for line in lines if line)


def constants(header):
    for name, value in re.findall(r"^#define (REPLCORE_\w+) (\S+)$", header, re.M):
        value = {"UINT64_MAX": "2**64 - 1", "UINT32_MAX": "2**32 - 1"}.get(value, value)
        yield f"{name.removeprefix('REPLCORE_')} = {value}"


def enums(header):
    for name, body in re.findall(r"^enum (replcore_\w+)\n.*?^ \{\n(.*?)^\};", header, re.M | re.S):
        prefix = name.upper() + "_"
        yield f"\n\nclass {class_name(name)}(enum.IntEnum):"
        for text, member, value in re.findall(r"/\*(.*?)\*/\s+(\w+) = (-?\d+),", body, re.S):
            yield f"    # {comment(text)}"
            yield f"    {member.removeprefix(prefix)} = {value}"


def structures(header):
    """In an order in which each comes after what it contains."""
    found = re.findall(r"typedef struct (replcore_\w+) \{\n(.*?)^\} \1;", header, re.M | re.S)
    done = set()
    while found:
        name, body = found.pop(0)
        fields = re.findall(r"^ +([^/\s][^;/]*);$", re.sub(r"/\*.*?\*/", "", body, flags=re.S), re.M)
        typed = [field_type(field) for field in fields]
        if any(kind.startswith("replcore_") and kind not in done for _, kind in typed):
            found.append((name, body))
            continue
        done.add(name)
        yield f"\n\nclass {name}(ctypes.Structure):"
        yield "    _fields_ = ["
        for field, kind in typed:
            yield f'        ("{field}", {kind}),'
        yield "    ]"


def functions(header):
    text = re.sub(r"/\*.*?\*/", "", header[header.index('extern "C" {'):], flags=re.S)
    yield "\n\n# Name, result and parameters of every function.\nFUNCTIONS: list[tuple[str, Any, list[Any]]] = ["
    for result, name, parameters in re.findall(r"^(\w[\w ]*[ *]+)(replcore_\w+)\((.*?)\);", text, re.M | re.S):
        plain = "ctypes.c_char_p" if "*" in result else SCALARS[result.strip()]
        parameters = [] if parameters.strip() == "void" else parameters.split(",")
        types = [argument_type(" ".join(one.split()))[1] for one in parameters]
        yield f'    ("{name}", {plain}, [{", ".join(types)}]),'
    yield "]"


def make():
    header = HEADER.read_text()
    parts = [constants(header), enums(header), structures(header), functions(header)]
    return HEAD + "\n".join(line for part in parts for line in part) + "\n"


def main():
    made = make()
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if made == MODULE.read_text() else "src/replcore/_abi.py is not what the header says")
    MODULE.write_text(made)


if __name__ == "__main__":
    main()
