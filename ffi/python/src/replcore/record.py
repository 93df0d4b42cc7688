"""Messages, and the records that they travel in."""

from __future__ import annotations

import ctypes
import dataclasses
import time
from typing import Any, Mapping, Optional, Sequence

from ._abi import (
    Status,
    replcore_header,
    replcore_message,
    replcore_part,
    replcore_record,
    replcore_record_id,
)
from ._library import check, library
from .errors import InvalidMessage, StatusError
from .machine import text

DEFAULT_CLASS = 2
CLASSES = 4


@dataclasses.dataclass(frozen=True)
class Message:
    """A message to post. Only the body is wanted."""

    body: bytes
    type: str = ""
    """What kind of message it is; dispatch rules look at it. At most 255 bytes."""
    key: bytes = b""
    """What it is about; of two messages of one type and key the later one is the current one."""
    message_class: int = DEFAULT_CLASS
    """Its urgency, 0 (goes before all others) to 3."""
    content_type: str = ""
    """The media type of the body."""
    to: Sequence[str] = ()
    """Queues that it is to go to, beside what the dispatch rules say. At most 32."""
    headers: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    """For the applications. At most 32."""
    idempotency_key: bytes = b""
    """Names the act of posting: a second post with the same key at the same leaf is the same message."""
    expires: Optional[float] = None
    """When it is no longer worth delivering, in seconds since 1970."""


@dataclasses.dataclass(frozen=True)
class ReceivedMessage:
    """A message that came from the hub. It is safe in the leaf's own log."""

    number: int
    """Its place among all that this leaf has ever received: 0, 1, 2, ... for ever."""
    id: str
    """What it is called on every node: origin/epoch/class/number."""
    origin: str
    """The name of the node where it was posted."""
    body: bytes
    type: str
    key: bytes
    message_class: int
    content_type: str
    to: Sequence[str]
    headers: Mapping[str, bytes]
    idempotency_key: bytes
    time: float
    """When it was posted, by the clock there, in seconds since 1970; 0.0 when not known."""
    expires: Optional[float]
    """When it is no longer worth delivering, in seconds since 1970."""


def message_id(origin: str, epoch: int, message_class: int, seq: int) -> str:
    """What a message is called on every node."""
    return f"{origin}/{epoch}/{message_class}/{seq}"


def name_id(name: str) -> int:
    """The number of a node's or queue's name in records and streams."""
    number = ctypes.c_uint64()
    check(f"the name {name!r}", library.replcore_name_id(text(name, "name"), ctypes.byref(number)))
    return number.value


class Encoder:
    """Makes records of the messages of one node."""

    def __init__(self, name: str, origin: int) -> None:
        self._message = replcore_message(struct_size=ctypes.sizeof(replcore_message))
        self._message.origin_name = text(name, "name")
        self._id = replcore_record_id(origin=origin)
        self._written = ctypes.c_size_t()
        self._references = [ctypes.byref(one) for one in (self._message, self._id, self._written)]
        self._keep: list[Any] = []
        self._grow(64 << 10)
        self.stamp = 0
        """The greatest that was given out or seen."""

    def _grow(self, size: int) -> None:
        self._size = size
        self._out = ctypes.create_string_buffer(size)
        self._view = memoryview(self._out)

    def prepare(self, message: Message, epoch: int) -> None:
        """Sets all but the body for the records that follow."""
        given = self._message
        try:
            given.message_type = text(message.type, "type")
            given.content_type = text(message.content_type, "content_type")
            given.key, given.key_len = message.key, len(message.key)
            given.idempotency_key = message.idempotency_key
            given.idempotency_key_len = len(message.idempotency_key)
            given.expires_wall_ms = int((message.expires or 0) * 1000)
            names = [text(name, "a queue") for name in message.to]
            pairs = [replcore_header(text(name, "header"), bytes(value), len(value))
                     for name, value in message.headers.items()]
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidMessage(f"message of type {message.type!r}: {error}") from None
        to = (ctypes.c_char_p * len(names))(*names)
        headers = (replcore_header * len(pairs))(*pairs)
        given.to, given.to_count = ctypes.cast(to, ctypes.c_void_p), len(names)
        given.headers, given.header_count = ctypes.cast(headers, ctypes.c_void_p), len(pairs)
        self._keep = [to, headers]
        self._id.epoch, self._id.message_class = epoch, message.message_class

    def encode(self, body: bytes, seq: int) -> memoryview:
        """The record of this body, to be copied before the next."""
        message, identity, written = self._references
        try:
            self._message.body = body
        except TypeError:
            raise InvalidMessage(f"the body is of {type(body).__name__}; give bytes") from None
        self._message.body_len = len(body)
        self._id.seq = seq
        self.stamp = library.replcore_stamp_next(self.stamp, time.time_ns() // 1_000_000)
        self._message.stamp = self.stamp
        status = library.replcore_record_encode(message, identity, 0, self._out, self._size, written)
        if status == Status.SHORT:
            self._grow(self._written.value)
            status = library.replcore_record_encode(message, identity, 0, self._out, self._size, written)
        if status:
            try:
                check("message", status)
            except StatusError as error:
                raise InvalidMessage(f"{error}; see help(replcore.Message) for the limits") from None
        return self._view[: self._written.value]


def check_record(data: bytes, record: replcore_record) -> int:
    """Reads the record that is all of `data`; answers the status."""
    return int(library.replcore_record_check(data, len(data), ctypes.byref(record)))


def received(data: bytes, number: int) -> ReceivedMessage:
    """What is in a record."""
    found = replcore_record()
    check("record", check_record(data, found))
    origin = _part(data, found.origin_name_at, found.origin_name_len).decode()
    identity = found.id
    return ReceivedMessage(
        number=number,
        id=message_id(origin or f"#{identity.origin:016x}", identity.epoch, identity.message_class, identity.seq),
        origin=origin,
        body=_part(data, found.body_at, found.body_len),
        type=_part(data, found.type_at, found.type_len).decode(),
        key=_part(data, found.key_at, found.key_len),
        message_class=identity.message_class,
        content_type=_part(data, found.content_type_at, found.content_type_len).decode(),
        to=[name.decode() for name, _ in _parts("to", data, found.to_count)],
        headers={name.decode(): value for name, value in _parts("header", data, found.header_count)},
        idempotency_key=_part(data, found.idempotency_key_at, found.idempotency_key_len),
        time=found.time_wall_ms / 1000,
        expires=found.expires_wall_ms / 1000 or None,
    )


def _part(data: bytes, at: int, length: int) -> bytes:
    return data[at : at + length]


def _parts(kind: str, data: bytes, count: int) -> "list[tuple[bytes, bytes]]":
    function = getattr(library, f"replcore_record_{kind}")
    part, found = replcore_part(), []
    for index in range(count):
        check(kind, function(data, len(data), index, ctypes.byref(part)))
        name = _part(data, part.name_at, part.name_len)
        found.append((name, _part(data, part.value_at, part.value_len)))
    return found
