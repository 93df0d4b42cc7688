"""Links without TLS that only the two ends can read: the keys of a leaf, and the line that it begins. What goes
over the line is in section 10 of ``docs/wire.md``.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pathlib
import secrets
from typing import Any, Dict, Optional, Protocol

from . import _abi
from ._library import check, library
from .errors import ReplcoreError
from .record import name_id

ANSWER_SECONDS = 5.0
FILE_BYTES_MAX = 8 << 20
KEY_DIGITS = 2 * _abi.NOISE_KEY_BYTES


class Identity:
    """How a leaf shows its hub who it is: from a file of keys as ``replcore key`` makes it.

    ::

        private HEX          this leaf's own pair, by its private half
        NAME public HEX      the hub NAME has the pair with this public half
        NAME psk HEX         a key that only the hub NAME and this leaf have

    Raises:
        ReplcoreError: the file cannot be used; the text names the line, and shows no key.
    """

    def __init__(self, path: pathlib.Path, name: str) -> None:
        own: Optional[bytes] = None
        shared: Dict[str, bytes] = {}
        public: Dict[str, bytes] = {}
        for number, line in enumerate(_read(path).splitlines(), 1):
            words = line.split("#")[0].split()
            try:
                if not words:
                    continue
                if len(words) == 2 and words[0] == "private" and own is None:
                    own = _key(words[1])
                elif len(words) == 3 and words[1] in ("psk", "public"):
                    name_id(words[0])
                    keys = shared if words[1] == "psk" else public
                    if words[0] in keys:
                        raise ReplcoreError(f"a second key of {words[0]}; keep one")
                    keys[words[0]] = _key(words[2])
                else:
                    raise ReplcoreError("not a key; write `private KEY`, `NAME psk KEY` or `NAME public KEY`")
            except ReplcoreError as error:
                raise ReplcoreError(f"{path}:{number}: {error}") from None
        hubs = sorted({*shared, *public})
        if len(hubs) != 1:
            raise ReplcoreError(
                f"{path} has keys of {', '.join(hubs) or 'no hub'}; a leaf's file has those of its hub alone")
        self.hub = hubs[0]
        """The name that the key at the other end is for."""
        self.structure = _abi.replcore_noise_identity(struct_size=ctypes.sizeof(_abi.replcore_noise_identity))
        if self.hub in shared:
            self.structure.name, self.structure.shared_key = name.encode(), shared[self.hub]
        elif own is not None:
            self.structure.own_key, self.structure.hub_key = own, public[self.hub]
        else:
            raise ReplcoreError(f"{path} has no private key of this leaf; make one with `replcore key make`")


def _read(path: pathlib.Path) -> str:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise ReplcoreError(f"{path} has keys and is open to others (mode {mode:03o}): chmod 600 {path}")
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ReplcoreError(f"cannot read the keys in {path}: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise ReplcoreError(f"{path} is longer than {FILE_BYTES_MAX} bytes")
    return data.decode(errors="replace")


def _key(digits: str) -> bytes:
    if len(digits) == KEY_DIGITS and digits.isascii() and digits.isalnum():
        try:
            return bytes.fromhex(digits)
        except ValueError:
            pass
    raise ReplcoreError(f"a key has {KEY_DIGITS} hexadecimal digits; make one with `replcore key`")


class Owner(Protocol):
    """What has a line, and is told of it as of a connection, but by whole frames."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def connection_lost(self, error: Optional[Exception]) -> None: ...
    def frame_received(self, frame: bytes) -> None: ...
    def resume_writing(self) -> None: ...
    def not_secured(self, why: str) -> None: ...


class SecuredLine(asyncio.Protocol, asyncio.Transport):
    """A connection whose frames are sealed: to asyncio a protocol, to its owner a transport of whole frames.

    The owner is told that the connection is made when both ends have the keys, and by ``not_secured`` when that
    has failed.
    """

    def __init__(self, owner: Owner, identity: Identity, frame_bytes_max: int) -> None:
        super().__init__()
        self._owner, self._identity = owner, identity
        self._memory = ctypes.create_string_buffer(library.replcore_noise_memory())
        self._line = ctypes.c_void_p()
        status = library.replcore_noise_init(
            self._memory, len(self._memory), _abi.NOISE_BEGINS, ctypes.byref(self._line))
        check("noise", status)
        self._decoder = _abi.replcore_cobs_decoder()
        # With the checksum.
        self._packet = ctypes.create_string_buffer(frame_bytes_max + _abi.NOISE_OVERHEAD_BYTES + 4)
        self._is_up = self._is_done = False
        self._transport: Optional[asyncio.Transport] = None
        self._due: Optional[asyncio.TimerHandle] = None

    # ---- What asyncio tells ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._is_done:
            return transport.abort()
        out, written = ctypes.create_string_buffer(_abi.NOISE_HANDSHAKE_BYTES_MAX), ctypes.c_size_t()
        check("noise", library.replcore_noise_start(
            self._line, ctypes.byref(self._identity.structure), secrets.token_bytes(_abi.NOISE_KEY_BYTES),
            out, len(out), ctypes.byref(written)))
        self._due = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._fail, "no answer in time")
        self._send(out, written.value)

    def connection_lost(self, error: Optional[Exception]) -> None:
        library.replcore_noise_forget(self._line)
        if self._is_up:
            self._is_up = False
            self._owner.connection_lost(error)
        else:
            self._fail("it has closed the line; see whether it has a key of this leaf")

    def data_received(self, data: bytes) -> None:
        at, taken, length = 0, ctypes.c_size_t(), ctypes.c_size_t()
        address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
        while at < len(data) and not self._is_done:
            check("noise", library.replcore_cobs_take(
                ctypes.byref(self._decoder), address + at, len(data) - at, self._packet, len(self._packet),
                ctypes.byref(taken), ctypes.byref(length)))
            at += taken.value
            if length.value != ctypes.c_size_t(-1).value:
                self._take(length.value)

    def _take(self, length: int) -> None:
        taken = _abi.replcore_noise_taken()
        check("noise", library.replcore_noise_take(self._line, self._packet, length, ctypes.byref(taken)))
        if taken.kind == _abi.NOISE_FRAME:
            self._owner.frame_received(bytes(memoryview(self._packet)[taken.at : taken.at + taken.len]))
        elif taken.kind == _abi.NOISE_UP:
            self._is_up = True
            if self._due is not None:
                self._due.cancel()
            self._owner.connection_made(self)
        elif taken.kind == _abi.NOISE_LOST:
            self.abort()
        elif taken.reason == _abi.NOISE_FORGED and not self._is_up:
            self._fail(f"{self._identity.hub} has another key than the one here; compare both ends")

    def resume_writing(self) -> None:
        self._owner.resume_writing()

    def _fail(self, why: str) -> None:
        if not self._is_done:
            self.abort()
            self._owner.not_secured(why)

    # ---- What the owner orders ----

    def write(self, data: Any) -> None:
        """Sends one frame."""
        head, tail = _abi.NOISE_HEAD_BYTES, _abi.NOISE_OVERHEAD_BYTES - _abi.NOISE_HEAD_BYTES
        packet = ctypes.create_string_buffer(bytes(head) + data + bytes(tail), len(data) + head + tail)
        written = ctypes.c_size_t()
        if library.replcore_noise_seal(self._line, packet, len(packet), len(data), ctypes.byref(written)):
            # Its keys are used up.
            return self.abort()
        self._send(packet, written.value)

    def _send(self, packet: Any, length: int) -> None:
        out = ctypes.create_string_buffer(library.replcore_cobs_encoded_max(length))
        written = ctypes.c_size_t()
        check("noise", library.replcore_cobs_encode(packet, length, out, len(out), ctypes.byref(written)))
        if self._transport is not None:
            self._transport.write(out.raw[: written.value])

    def close(self) -> None:
        self._end()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self._end()
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        self._is_done = True
        if self._due is not None:
            self._due.cancel()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def set_write_buffer_limits(self, high: Optional[int] = None, low: Optional[int] = None) -> None:
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high, low)
