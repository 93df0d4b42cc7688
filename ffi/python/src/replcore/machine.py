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
import dataclasses
import secrets
from typing import Dict, Iterator, List, Mapping, Optional, Tuple, Union

from ._abi import (
    FAILURE_CORRUPT,
    FAILURE_FULL,
    FAILURE_IO,
    KEY_BALLOT,
    KEY_MEMBERS,
    MEMBERSHIP_LEARNER,
    MEMBERSHIP_NONE,
    MEMBERSHIP_VOTER,
    NAME_BYTES,
    NEVER,
    NOT_DIALED,
    POLL_BYTES_MAX,
    PROFILE_BATTERY,
    PROFILE_LAN,
    PROFILE_WAN,
    ROLE_CLIENT,
    ROLE_LEAF,
    TRANSPORT_DATAGRAM,
    TRANSPORT_STREAM,
    LeafEvent,
    MemberEvent,
    OutputKind,
    PeerState,
    Refuse,
    Role,
    Status,
    replcore_leader,
    replcore_leaf_config,
    replcore_link_stats,
    replcore_member_config,
    replcore_member_counters,
    replcore_output,
    replcore_peer,
)
from ._library import check, library

__all__ = [
    "FAILURE_CORRUPT", "FAILURE_FULL", "FAILURE_IO", "KEY_BALLOT", "KEY_MEMBERS", "MEMBERSHIP_LEARNER",
    "MEMBERSHIP_NONE", "MEMBERSHIP_VOTER", "NEVER", "NOT_DIALED", "PROFILE_BATTERY", "PROFILE_LAN",
    "PROFILE_WAN", "ROLE_CLIENT", "ROLE_LEAF", "TRANSPORT_DATAGRAM", "TRANSPORT_STREAM", "Leaf", "LeafEvent",
    "Machine", "Member", "MemberEvent", "Output", "OutputKind", "PeerState", "PeerView", "Refuse", "Role",
    "Status", "first_epoch", "next_epoch",
]

Output = replcore_output
"""What a machine orders; ``kind`` is an :class:`OutputKind` and says which fields mean something."""


def first_epoch() -> int:
    """The epoch of a fresh log. Keep it with the log."""
    return int(library.replcore_epoch_first(secrets.randbits(64)))


def next_epoch(epoch: int) -> int:
    """The epoch that a log takes at each further start, and keeps before it posts anything."""
    return int(library.replcore_epoch_next(epoch, secrets.randbits(64)))


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
        """What a PERSIST ordered is safe."""
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
        self, now_us: int, token: int, epoch: int, released: int, next_position: int, sent: int
    ) -> None:
        """Answers an ASK_OUTBOUND. From `sent` on nobody else can have an entry; `next_position` for
        a program that cannot tell.
        """
        status = library.replcore_handle_answer_outbound(
            self._self, now_us, token, epoch, released, next_position, sent
        )
        check("handle_answer_outbound", status)

    def handle_answer_place(self, now_us: int, token: int, position: int) -> None:
        """Answers an ASK_PLACE."""
        check("handle_answer_place", library.replcore_handle_answer_place(self._self, now_us, token, position))

    def handle_answer_denied(self, now_us: int, token: int) -> None:
        """Answers an ASK_SUBSCRIBE of a program without consumers."""
        check("handle_answer_denied", library.replcore_handle_answer_denied(self._self, now_us, token))

    def _make(self, kind: str, config: ctypes.Structure, size: int) -> None:
        self._memory = ctypes.create_string_buffer(max(size, 1))
        self._self = ctypes.c_void_p()
        init = getattr(library, f"replcore_{kind}_init")
        check(kind, init(self._memory, size, ctypes.byref(config), ctypes.byref(self._self)))


def _configure(config: ctypes.Structure, kind: str, settings: Mapping[str, Union[int, str]]) -> None:
    config.struct_size = ctypes.sizeof(config)
    fields = {field[0] for field in config._fields_} - {"struct_size"}
    for key, value in settings.items():
        if key not in fields:
            raise TypeError(f"a {kind} has no setting {key!r}; see help(replcore.machine.{kind.capitalize()})")
        setattr(config, key, text(value, key) if isinstance(value, str) else value)


class Leaf(Machine):
    """The machine of a leaf: one link to a hub, the registration there, and the streams on it.

    `instance` is drawn once, `epoch` at each start; both are kept with the leaf's log. Other settings are the fields
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
        _configure(config, "leaf", settings)
        self._make("leaf", config, library.replcore_leaf_memory())

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

    def stats(self) -> Dict[str, int]:
        """What the links have counted since the start."""
        stats = replcore_link_stats()
        check("stats", library.replcore_leaf_stats(self._self, ctypes.byref(stats)))
        return {field[0]: getattr(stats, field[0]) for field in replcore_link_stats._fields_}


@dataclasses.dataclass(frozen=True)
class PeerView:
    """What a member knows of a node."""

    node: int
    name: str
    address: str
    """Where it can be reached, ``host:port``; empty when that is not known."""
    metadata: bytes
    version: int
    """How many times it has spoken of itself; 0 when all is from the configuration."""
    membership: int
    """What it is in the election, one of ``MEMBERSHIP_*``."""
    state: PeerState
    is_linked: bool
    priority: int
    round_trip_us: int


class Member(Machine):
    """The machine of a member of a cluster: who is here, and who leads.

    `instance` is drawn once and kept with what is stored. Other settings are the fields of
    ``replcore_member_config``: ``profile``, ``peers_max``, ``links_max``, ``without_election``,
    ``membership``, ``priority``, ``admits_nobody``, ``heartbeat_ms``, ``timeout_ms_min``,
    ``timeout_ms_max``, ``clock_error_ppm``, ``retry_ms_min``, ``retry_ms_max``, ``handshake_ms``,
    ``suspect_ms`` (numbers), ``address`` (a text). Links are numbered below ``links_max``.

    After each input and each command, and before its outputs are done, read :meth:`leader_until` and
    compare it with the clock whenever somebody asks whether this node leads.
    """

    def __init__(
        self, name: str, cluster: str, *, instance: int, seed: Optional[int] = None,
        **settings: Union[int, str],
    ) -> None:
        super().__init__()
        config = replcore_member_config(
            instance=instance, seed=secrets.randbits(64) if seed is None else seed,
            name=text(name, "name"), cluster=text(cluster, "cluster"),
        )
        _configure(config, "member", settings)
        self.links_max: int = config.links_max or 2 * (config.peers_max or 8)
        self._make("member", config, library.replcore_member_memory(ctypes.byref(config)))

    def add_peer(self, name: str, address: str = "", metadata: Optional[bytes] = None, voter: bool = True) -> None:
        """Makes a peer of the program's own configuration known; before the first input, or later."""
        status = library.replcore_member_add_peer(
            self._self, text(name, "name"), text(address, "address"), metadata, len(metadata or b""), voter
        )
        check(f"peer {name!r}", status)

    def set_metadata(self, now_us: int, metadata: bytes) -> None:
        """Says of this node what all others can read, at most 256 bytes."""
        status = library.replcore_member_set_metadata(self._self, now_us, metadata, len(metadata))
        check("set_metadata", status)

    def resign(self, now_us: int) -> None:
        """Leads no more and hands over to another."""
        check("resign", library.replcore_member_resign(self._self, now_us))

    def stop(self, now_us: int) -> None:
        """Hands over if it leads, says good-bye and dials no more."""
        check("stop", library.replcore_member_stop(self._self, now_us))

    def join(self, now_us: int, voter: bool = True) -> None:
        """Asks to become a voter, or a learner."""
        check("join", library.replcore_member_join(self._self, now_us, voter))

    def leave(self, now_us: int) -> None:
        """Asks to be no member any more."""
        check("leave", library.replcore_member_leave(self._self, now_us))

    def change(self, now_us: int, node: int, membership: int) -> None:
        """As leader: makes a connected node what ``MEMBERSHIP_*`` says."""
        check("change", library.replcore_member_change(self._self, now_us, node, membership))

    def set_progress(self, now_us: int, term: int, position: int) -> None:
        """Says how fresh this node's data is: it gets votes only from those that are not fresher."""
        check("set_progress", library.replcore_member_set_progress(self._self, now_us, term, position))

    def role(self) -> Role:
        """What it does in the election."""
        return Role(library.replcore_member_role(self._self))

    def term(self) -> int:
        """The term that this node is in."""
        return int(library.replcore_member_term(self._self))

    def leader_until(self) -> int:
        """Until when this node may say that it leads, in microseconds; 0 when it may not."""
        return int(library.replcore_member_leader_until(self._self))

    def leader(self) -> Optional[Tuple[int, int, int]]:
        """Who leads, in which term and since when (microseconds), as far as is known; this node included."""
        leader = replcore_leader()
        if library.replcore_member_leader(self._self, ctypes.byref(leader)):
            return None
        return leader.node, leader.term, leader.since_us

    def peer(self, node: int) -> Optional[PeerView]:
        """What is known of a node by its id, this node included."""
        peer = replcore_peer()
        status = library.replcore_member_peer(self._self, node, ctypes.byref(peer))
        return None if status else _peer(peer)

    def peers(self) -> List[PeerView]:
        """What is known of the other nodes."""
        peer = replcore_peer()
        found: List[PeerView] = []
        while not library.replcore_member_peer_at(self._self, len(found), ctypes.byref(peer)):
            found.append(_peer(peer))
        return found

    def dial_target(self, dial: int) -> Tuple[str, int]:
        """The address that a DIAL orders to open, and the id of who is to be found there."""
        out, node = ctypes.create_string_buffer(NAME_BYTES), ctypes.c_uint64()
        status = library.replcore_member_dial_target(self._self, dial, out, len(out), ctypes.byref(node))
        check("dial_target", status)
        return out.value.decode(), node.value

    def stats(self) -> Dict[str, int]:
        """What the member has counted since its start."""
        stats = replcore_member_counters()
        check("stats", library.replcore_member_stats(self._self, ctypes.byref(stats)))
        own = {field[0]: getattr(stats, field[0]) for field in replcore_member_counters._fields_}
        link = own.pop("link")
        return {**own, **{field[0]: getattr(link, field[0]) for field in replcore_link_stats._fields_}}


def _peer(peer: replcore_peer) -> PeerView:
    return PeerView(
        peer.node, peer.name.decode(), peer.address.decode(), bytes(peer.metadata[: peer.metadata_len]),
        peer.version, peer.membership, PeerState(peer.state), bool(peer.is_linked), peer.priority,
        peer.round_trip_us,
    )
