"""What a member keeps over restarts: its vote and the configuration, each in a file that is replaced as a
whole and synced before the member acts on it. The same files as a member of the daemon has::

    "RPLCMEMB", format u8 = 1, kind u8 (0 the instance, 1 the vote, 2 the configuration),
    bytes of the cluster's name u8, of the member's name u8, both names,
    bytes of the record u16, the record, CRC-32C of everything before u32
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import struct
from typing import Dict

from ._abi import KEY_BALLOT, KEY_MEMBERS
from ._library import library
from .errors import LogError

MAGIC = b"RPLCMEMB"
OWNER = "member"
FILES: Dict[int, str] = {KEY_BALLOT: "ballot", KEY_MEMBERS: "configuration"}
KINDS = {OWNER: 0, "ballot": 1, "configuration": 2}
REMEDY = ("a member that has forgotten its vote may vote twice: restore the folder from a copy, or remove this "
          "member from the cluster and give it a new name")


def default_folder(cluster: str, name: str) -> pathlib.Path:
    """Where a member that is given no folder has its own."""
    data = os.environ.get("REPLCORE_DATA")
    if not data:
        share = os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local/share"
        data = str(pathlib.Path(share) / "replcore")
    return pathlib.Path(data) / "clusters" / _folder_name(cluster) / _folder_name(name)


def _folder_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", lambda found: f"%{ord(found[0]):02X}", name)


class StateFolder:
    """An open, locked folder. Blocking: :meth:`store` is for a thread that may wait."""

    def __init__(self, folder: pathlib.Path, cluster: str, name: str) -> None:
        self.folder = folder
        self._owner = struct.pack("<BB", len(cluster), len(name)) + cluster.encode() + name.encode()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LogError(f"{folder}: {error.strerror}; give a folder that can be written to") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise LogError(f"{folder}: in use by another member; each needs a folder of its own") from None
        try:
            self.instance = self._claim()
        except BaseException:
            self.close()
            raise

    def _claim(self) -> int:
        known = self._read(OWNER)
        if known:
            return struct.unpack("<Q", known)[0]  # type: ignore[no-any-return]
        instance = int.from_bytes(os.urandom(8), "little") | 1
        self._replace(OWNER, struct.pack("<Q", instance))
        return instance

    def load(self, key: int) -> bytes:
        """What was stored under the key; empty when nothing was."""
        return self._read(FILES[key])

    def store(self, key: int, record: bytes) -> None:
        """Replaces what is stored under the key; returns when it survives the loss of power."""
        self._replace(FILES[key], record)

    def _read(self, file: str) -> bytes:
        path = self.folder / file
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise LogError(f"{path}: {error.strerror}; make it readable") from None
        head = MAGIC + struct.pack("<BB", 1, KINDS[file])
        crc = library.replcore_crc32c(data[:-4], len(data) - 4) if len(data) > 4 else 0
        if len(data) < len(head) + 6 or data[-4:] != struct.pack("<I", crc) or not data.startswith(head):
            raise LogError(f"{path}: is damaged or of a later version; {REMEDY}")
        rest = data[len(head) : -4]
        if not rest.startswith(self._owner):
            raise LogError(f"{path}: belongs to another member or cluster; give each a folder of its own")
        (length,) = struct.unpack_from("<H", rest, len(self._owner))
        record = rest[len(self._owner) + 2 :]
        if len(record) != length:
            raise LogError(f"{path}: is damaged; {REMEDY}")
        return record

    def _replace(self, file: str, record: bytes) -> None:
        data = MAGIC + struct.pack("<BB", 1, KINDS[file]) + self._owner + struct.pack("<H", len(record)) + record
        data += struct.pack("<I", library.replcore_crc32c(data, len(data)))
        path = self.folder / f"{file}.new"
        with open(path, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(path, self.folder / file)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        os.close(self._lock)
