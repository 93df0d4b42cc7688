"""The state machines, for a loop of your own.

A machine reads no clock, opens nothing and never waits. You tell it what happens and do what it
orders::

    leaf = replcore.machine.Leaf("till-7", instance=42, epoch=replcore.machine.first_epoch())
    leaf.handle_timeout(now_us)
    for output in leaf.outputs():          # do each at once: it is overwritten by the next
        if output.kind == OutputKind.SEND:
            connection.write(leaf.payload(output))
        elif output.kind == OutputKind.DIAL:
            ...
    # wait for input, or until leaf.wake_us

Every turn is one input or one command, then all the outputs. Times are microseconds of a clock that
never goes back, such as ``time.monotonic_ns() // 1000``. What each output asks, and what to answer, is
said in ``include/replcore.h`` and in ``docs/driving-a-machine.md``; :class:`replcore.Leaf` is a whole
driver for asyncio with a log on disk.
"""

from __future__ import annotations

import ctypes
import secrets
from typing import Iterator, Optional, Union

from ._abi import (
    FAILURE_CORRUPT,
    FAILURE_FULL,
    FAILURE_IO,
    NEVER,
    NOT_DIALED,
    POLL_BYTES_MAX,
    ROLE_CLIENT,
    ROLE_LEAF,
    TRANSPORT_DATAGRAM,
    TRANSPORT_STREAM,
    LeafEvent,
    OutputKind,
    Refuse,
    Status,
    replcore_leaf_config,
    replcore_link_stats,
    replcore_output,
)
from ._library import check, library

__all__ = [
    "FAILURE_CORRUPT", "FAILURE_FULL", "FAILURE_IO", "NEVER", "NOT_DIALED", "ROLE_CLIENT", "ROLE_LEAF",
    "TRANSPORT_DATAGRAM", "TRANSPORT_STREAM", "Leaf", "LeafEvent", "Machine", "Output", "OutputKind",
    "Refuse", "Status", "first_epoch",
]

Output = replcore_output
"""What a machine orders; ``kind`` is an :class:`OutputKind` and says which fields mean something."""


def first_epoch() -> int:
    """The epoch of a fresh log. Keep it with the log."""
    return int(library.replcore_epoch_first(secrets.randbits(64)))


def text(given: str, what: str) -> bytes:
    """`given` for a C function."""
    data = given.encode()
    if b"\0" in data:
        raise ValueError(f"{what} has a zero byte: {given!r}")
    return data


class Machine:
    """What all machines have in common. Not thread safe: use one machine from one thread at a time.

    A call that makes no sense raises :class:`replcore.StatusError`, and nothing has changed.
    """

    _self: ctypes.c_void_p

    def __init__(self) -> None:
        self.output = Output()
        """The output of the last :meth:`poll`; the next one overwrites it."""
        self.wake_us = 0
        """When to call :meth:`handle_timeout`, after the last output; ``NEVER`` for not before input."""
        self._buffer = ctypes.create_string_buffer(POLL_BYTES_MAX)
        self._view = memoryview(self._buffer)
        self._output = ctypes.byref(self.output)
        self._taken = ctypes.c_size_t()
        self._taken_ref = ctypes.byref(self._taken)

    def poll(self) -> Output:
        """The next thing to do; of kind ``IDLE`` when there is none."""
        status = library.replcore_poll(self._self, self._buffer, POLL_BYTES_MAX, self._output)
        if status:
            check("poll", status)
        return self.output

    def outputs(self) -> Iterator[Output]:
        """All there is to do now. Do each before the next is asked for."""
        while self.poll().kind != OutputKind.IDLE:
            yield self.output
        self.wake_us = self.output.next

    def payload(self, output: Output) -> bytes:
        """The bytes that go with the last output."""
        return bytes(self._view[: output.len])

    def restore(self, key: int, node: int, data: bytes) -> None:
        """Before the first input: gives back what a PERSIST of an earlier life ordered to keep."""
        check("restore", library.replcore_restore(self._self, key, node, data, len(data)))

    def handle_timeout(self, now_us: int) -> None:
        """Time has passed. Early, late and needless ones are harmless."""
        check("handle_timeout", library.replcore_handle_timeout(self._self, now_us))

    def handle_link_up(
        self,
        now_us: int,
        link: int,
        dialed: int = NOT_DIALED,
        transport: int = TRANSPORT_STREAM,
        identity: int = 0,
    ) -> None:
        """A link is open. `dialed` is the place of a DIAL, `identity` who the other end has proved to be."""
        status = library.replcore_handle_link_up(self._self, now_us, link, dialed, transport, identity)
        check("handle_link_up", status)

    def handle_link_down(self, now_us: int, link: int) -> None:
        """An open link is closed."""
        check("handle_link_down", library.replcore_handle_link_down(self._self, now_us, link))

    def handle_dial_failed(self, now_us: int, dial: int) -> None:
        """A DIAL has failed."""
        check("handle_dial_failed", library.replcore_handle_dial_failed(self._self, now_us, dial))

    def handle_recv(self, now_us: int, link: int, data: Union[bytes, int], length: Optional[int] = None) -> int:
        """Bytes have come; answers how many were taken. Keep the rest in front of what comes next.

        `data` may be an address, with `length`.
        """
        size = len(data) if isinstance(data, bytes) else length
        status = library.replcore_handle_recv(self._self, now_us, link, data, size, self._taken_ref)
        if status:
            check("handle_recv", status)
        return self._taken.value

    def handle_writable(self, now_us: int, link: int, count: int) -> None:
        """The link can take `count` bytes more."""
        check("handle_writable", library.replcore_handle_writable(self._self, now_us, link, count))

    def handle_persisted(self, now_us: int, token: int) -> None:
        """What a PERSIST or RENUMBER ordered is safe."""
        check("handle_persisted", library.replcore_handle_persisted(self._self, now_us, token))

    def handle_failed(self, now_us: int, token: int, reason: int) -> None:
        """What a PERSIST ordered could not be done, for one of ``FAILURE_*``."""
        check("handle_failed", library.replcore_handle_failed(self._self, now_us, token, reason))

    def handle_sent(
        self, now_us: int, link: int, stream: int, position: int, offset: int, count: int, wire_bytes: int
    ) -> None:
        """A SEND_RECORDS was written: `count` bytes of records; the next starts at `position` and `offset`."""
        status = library.replcore_handle_sent(
            self._self, now_us, link, stream, position, offset, count, wire_bytes
        )
        check("handle_sent", status)

    def handle_gone(self, now_us: int, link: int, stream: int, next_position: int, reason: int) -> None:
        """The records of a SEND_RECORDS are not there up to `next_position`."""
        status = library.replcore_handle_gone(self._self, now_us, link, stream, next_position, reason)
        check("handle_gone", status)

    def handle_taken(
        self, now_us: int, link: int, stream: int, position: int, offset: int, count: int
    ) -> None:
        """All before `position` and `offset` of an incoming stream is safe; `count` bytes came with it."""
        status = library.replcore_handle_taken(self._self, now_us, link, stream, position, offset, count)
        check("handle_taken", status)

    def handle_refused(self, now_us: int, link: int, stream: int, reason: int) -> None:
        """Records could not be kept, for one of ``FAILURE_*``."""
        check("handle_refused", library.replcore_handle_refused(self._self, now_us, link, stream, reason))

    def handle_appended(self, now_us: int, link: int, stream: int, next_position: int) -> None:
        """An own queue that an ASK_OUTBOUND was about has grown."""
        status = library.replcore_handle_appended(self._self, now_us, link, stream, next_position)
        check("handle_appended", status)

    def handle_answer_inbound(self, now_us: int, token: int, epoch: int, position: int, offset: int = 0) -> None:
        """Answers an ASK_INBOUND."""
        status = library.replcore_handle_answer_inbound(self._self, now_us, token, epoch, position, offset)
        check("handle_answer_inbound", status)

    def handle_answer_outbound(
        self, now_us: int, token: int, epoch: int, released: int, next_position: int
    ) -> None:
        """Answers an ASK_OUTBOUND."""
        status = library.replcore_handle_answer_outbound(
            self._self, now_us, token, epoch, released, next_position
        )
        check("handle_answer_outbound", status)

    def handle_answer_denied(self, now_us: int, token: int) -> None:
        """Answers an ASK_SUBSCRIBE of a program without consumers."""
        check("handle_answer_denied", library.replcore_handle_answer_denied(self._self, now_us, token))

    def _make(self, kind: str, config: ctypes.Structure) -> None:
        size = getattr(library, f"replcore_{kind}_memory")()
        self._memory = ctypes.create_string_buffer(size)
        config.struct_size = ctypes.sizeof(config)
        self._self = ctypes.c_void_p()
        init = getattr(library, f"replcore_{kind}_init")
        check(kind, init(self._memory, size, ctypes.byref(config), ctypes.byref(self._self)))


class Leaf(Machine):
    """The machine of a leaf: one link to a hub, the registration there, and the streams on it.

    `instance` and `epoch` are drawn once and kept with the leaf's log. Other settings are the fields
    of ``replcore_leaf_config``: ``frame_bytes_max``, ``window_bytes``, ``keepalive_ms``,
    ``retransmit_ms``, ``retry_ms_min``, ``retry_ms_max``, ``register_ms``, ``lease_ms``,
    ``poll_interval_ms``, ``role``, ``waits``, ``consumer_from_start`` (numbers), ``extra_queue``,
    ``address``, ``queue``, ``consumer``, ``consumer_type`` (texts). Its one link has the number 0.
    """

    def __init__(
        self, name: str, *, instance: int, epoch: int, seed: Optional[int] = None, **settings: Union[int, str]
    ) -> None:
        super().__init__()
        seed = secrets.randbits(64) if seed is None else seed
        config = replcore_leaf_config(instance=instance, epoch=epoch, seed=seed, name=text(name, "name"))
        fields = {field[0] for field in replcore_leaf_config._fields_}
        for key, value in settings.items():
            if key not in fields or key == "struct_size":
                raise TypeError(f"a leaf has no setting {key!r}; see help(replcore.machine.Leaf)")
            setattr(config, key, text(value, key) if isinstance(value, str) else value)
        self._make("leaf", config)

    def stop(self, now_us: int) -> None:
        """Closes the link with a good-bye and dials no more."""
        check("stop", library.replcore_leaf_stop(self._self, now_us))

    def reject(self, now_us: int, stream: int, position: int) -> None:
        """Sends an entry that came as a consumer's to the dead letters; it is still to be taken."""
        check("reject", library.replcore_leaf_reject(self._self, now_us, stream, position))

    def is_connected(self) -> bool:
        """Whether the leaf is registered at its hub."""
        return bool(library.replcore_leaf_connected(self._self))

    def is_drained(self) -> bool:
        """Whether all that was reported of the own queue is acknowledged."""
        return bool(library.replcore_leaf_drained(self._self))

    def round_trip_us(self) -> int:
        """Of the last ping, in microseconds; 0 when not known."""
        return int(library.replcore_leaf_round_trip_us(self._self))

    def peer(self) -> str:
        """The name of the node at the other end; empty while it is not known."""
        out = ctypes.create_string_buffer(64)
        check("peer", library.replcore_leaf_peer(self._self, out, len(out)))
        return out.value.decode()

    def stats(self) -> "dict[str, int]":
        """What the links have counted since the start."""
        stats = replcore_link_stats()
        check("stats", library.replcore_leaf_stats(self._self, ctypes.byref(stats)))
        return {field[0]: getattr(stats, field[0]) for field in replcore_link_stats._fields_}
