"""A member of a cluster: :class:`Cluster`, and :class:`QCluster`, its other name."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import pathlib
import queue
import socket
import threading
import time
from typing import Any, AsyncIterator, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from . import _abi, machine
from ._abi import PeerState
from ._member_driver import STOP_SECONDS, Driver
from ._member_state import FILES, StateFolder, default_folder
from ._tls import Tls
from .errors import Closed, ReplcoreError, StatusError
from .record import name_id

logger = logging.getLogger("replcore")

EVENTS_MAX = 1000
"""Events that wait for a slow handler; the oldest are dropped and counted."""
PROFILES = {"lan": machine.PROFILE_LAN, "wan": machine.PROFILE_WAN, "battery": machine.PROFILE_BATTERY}
KEYS = {
    "identifier", "listen_host", "listen_port", "peers", "cluster", "metadata", "advertise", "profile",
    "heartbeat_ms", "timeout_ms_min", "timeout_ms_max", "masterless", "learner", "priority", "data_folder",
    "tls_ca", "tls_cert", "tls_key",
}
TLS_KEYS = ("tls_ca", "tls_cert", "tls_key")


@dataclasses.dataclass(frozen=True)
class Peer:
    """A member of the cluster, as this one knows it."""

    host: str
    """Where it can be reached for the cluster's own traffic."""
    port: int
    identifier: str
    """Its name, unique in the cluster."""
    metadata: Mapping[str, Any]
    """What it says of itself, or the configuration says of it."""
    is_up: bool
    """Whether it is there."""
    is_voter: bool
    """Whether it votes and can lead."""
    round_trip_us: int
    """In microseconds; 0 when not known."""


@dataclasses.dataclass(frozen=True)
class ClusterEvent:
    """Something that happened in the cluster."""

    kind: str
    """``became_leader``, ``lost_leadership``, ``leader_changed``, ``peer_up``, ``peer_down``,
    ``peer_changed``, ``configuration_changed``, ``removed`` or ``refused``."""
    term: int
    """Of the first three: the term, which only rises. Give it along with what only a leader may do, so that
    a later leader's orders win over those of an earlier one."""
    identifier: str
    """Who leads, or whom it is about; empty for nobody."""


class Cluster:
    """A member of a cluster that elects one leader and knows who is there.

    ::

        cluster = replcore.Cluster(
            identifier="server_a", listen_host="localhost", listen_port=7001,
            peers=[
                {"host": "localhost", "port": 7002, "identifier": "server_b"},
                {"host": "localhost", "port": 7003, "identifier": "server_c", "metadata": {"server_port": 8003}},
            ],
        )
        if cluster.is_leader():
            print("I am the leader")
        else:
            print("This is the leader:", cluster.get_leader_info())

    It works from the moment it is made, in a thread of its own, with or without a running event loop, until
    :meth:`close`, the end of a ``with`` block, or the end of the program. All members are given each other.

    Args:
        identifier: The member's name, 1 to 63 of ``A-Z a-z 0-9 . _ - : /``.
        listen_host: Where it listens; default ``localhost``.
        listen_port: The port; default 0, any that is free.
        peers: The other members, each with ``host``, ``port``, ``identifier`` and perhaps ``metadata`` and
            ``learner``. One that is not sound is passed over and reported to the logger ``replcore``.
        cluster: The cluster's name, the same for all; members of another are refused. Default ``default``.
        metadata: What it says of itself: a dictionary of at most 256 bytes as JSON. Default: what the
            configurations of its peers say of it.
        advertise: ``host:port`` where the others reach it; default where it listens.
        profile: ``lan`` (a dead leader is replaced within a second), ``wan`` or ``battery``.
        heartbeat_ms, timeout_ms_min, timeout_ms_max: In place of the profile's; the same for all.
        masterless: No election: the members only know of each other.
        learner: It does not vote and cannot lead.
        priority: 1 to 255; the greatest that is there campaigns first. Default 100.
        data_folder: Where its vote is kept: it must not lose that. Default a folder of its cluster and name
            in ``$REPLCORE_DATA``, else ``$XDG_DATA_HOME/replcore``, else ``~/.local/share/replcore``.
        tls_ca, tls_cert, tls_key: Mutual TLS 1.3 between the members: PEM files with the authorities that are
            trusted, the member's own certificate, and its key. The certificate names the member:
            ``replcore ca issue`` makes such. Files that change are taken up by themselves.

    Keys that are not known are passed over, so that one file can serve several programs, and members of the
    daemon (``replcore cluster``) and those here can be in one cluster.

    Without TLS the network between the members has to be closed: whoever reaches the port and knows the
    cluster's name can take part.

    Raises:
        ReplcoreError: the configuration cannot be used; the text says why and what to do.
        OSError: it cannot listen there.
    """

    def __init__(
        self, identifier: str, listen_host: str = "localhost", listen_port: int = 0,
        peers: Sequence[Mapping[str, Any]] = (), **configuration: Any,
    ) -> None:
        given = {key: value for key, value in configuration.items() if key in KEYS}
        for key in sorted(set(configuration) - KEYS):
            logger.info("cluster %s: the key %r is not known and passed over", identifier, key)
        self.identifier = identifier
        self._own_id = name_id(identifier)
        self._cluster = str(given.get("cluster", "default"))
        name_id(self._cluster)
        profile = given.get("profile", "lan")
        if profile not in PROFILES:
            raise ReplcoreError(f"profile {profile!r}: there are lan, wan and battery")
        self._tls = _tls(given, identifier)
        sound = self._sound_peers(peers)
        folder = given.get("data_folder") or default_folder(self._cluster, identifier)
        self._state = StateFolder(pathlib.Path(folder), self._cluster, identifier)
        try:
            self._socket = _listen(listen_host, listen_port)
            self.host, self.port = listen_host, self._socket.getsockname()[1]
            address = given.get("advertise") or _join(listen_host, self.port)
            self._machine = self._make(given, sound, address, PROFILES[profile])
        except BaseException:
            self._state.close()
            if hasattr(self, "_socket"):
                self._socket.close()
            raise
        self._until = 0.0
        self._leader: Optional[Peer] = None
        self._term = 0
        self._closed = False
        self._events_lost = 0
        self._handlers: List[Callable[[ClusterEvent], Any]] = []
        self._handled: "queue.Queue[Optional[ClusterEvent]]" = queue.Queue(EVENTS_MAX)
        self._readers: List[Tuple[asyncio.AbstractEventLoop, "asyncio.Queue[Optional[ClusterEvent]]"]] = []
        self._changed = threading.Condition()
        self._publish_peers()
        self._loop = asyncio.new_event_loop()
        self._driver = Driver(self)
        self._threads = [
            threading.Thread(target=self._run, name=f"replcore-{identifier}", daemon=True),
            threading.Thread(target=self._run_handlers, name=f"replcore-{identifier}-events", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    # ---- Who leads ----

    def is_leader(self) -> bool:
        """Whether this member leads, now.

        Never waits, from any thread. True for at most one member at any moment: it is a lease, on this
        machine's steady clock, that other members respect. What is done after the answer is done later: give
        :meth:`term` along with what must not be done by two.
        """
        return time.monotonic() < self._until

    def get_leader_info(self) -> Optional[Peer]:
        """The leader, this member included; None while a majority has none. Never waits, from any thread."""
        return self._leader

    def term(self) -> int:
        """The term that this member is in; it only rises. Of a leader it is the fencing token."""
        return self._term

    def get_peers(self) -> Tuple[Peer, ...]:
        """All other members that are known. Never waits, from any thread."""
        return self._peers

    def wait_for_leader(self, timeout: Optional[float] = None) -> Optional[Peer]:
        """Waits, blocking the thread, until there is a leader; None when `timeout` seconds have passed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._leader is not None, timeout)
        return self._leader

    def stats(self) -> Dict[str, int]:
        """What the member has counted since its start; see ``replcore_member_counters`` in the C header.

        ``connections_refused`` are those that others opened for which there was no room, or that TLS has refused.
        """
        return {**self._order(self._machine.stats), "connections_refused": self._driver.connections_refused}

    # ---- Orders ----

    def set_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Says of this member what all others can read, in place of what it said before."""
        data = _metadata(metadata, self.identifier)
        self._order(lambda: self._machine.set_metadata(self._driver.now(), data))

    def resign(self) -> None:
        """Leads no more and hands over to another, which takes a round trip or two.

        Raises:
            StatusError: this member does not lead.
        """
        self._order(lambda: self._machine.resign(self._driver.now()))

    def join(self, voter: bool = True) -> None:
        """Asks to become a voter of the cluster, or a learner; the leader sees to it once it hears of it."""
        self._order(lambda: self._machine.join(self._driver.now(), voter))

    def leave(self) -> None:
        """Asks to be no member any more; the event ``removed`` tells when."""
        self._order(lambda: self._machine.leave(self._driver.now()))

    def close(self) -> None:
        """Hands over if it leads, says good-bye, and ends. May be called twice, and from any thread but its own."""
        if self._closed:
            return
        self._closed = True
        self._until = 0.0
        asyncio.run_coroutine_threadsafe(self._driver.stop(), self._loop).result(2 * STOP_SECONDS + 5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._put_event(None)
        self._threads[0].join()
        if threading.current_thread() is not self._threads[1]:
            self._threads[1].join(STOP_SECONDS)
        self._loop.close()
        self._state.close()
        with self._changed:
            self._changed.notify_all()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> "Cluster":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    # ---- Events ----

    def add_handler(self, handler: Callable[[ClusterEvent], Any]) -> None:
        """Has `handler` called with every event, in a thread for handlers alone.

        It may be slow: up to 1,000 events wait for it, then the oldest are dropped. It may fail: that is logged.
        """
        self._handlers.append(handler)

    def remove_handler(self, handler: Callable[[ClusterEvent], Any]) -> None:
        """Has `handler` called no more."""
        self._handlers.remove(handler)

    async def events(self) -> AsyncIterator[ClusterEvent]:
        """Every event from now on, for a program with a running loop; ends when the member is closed."""
        waiting: "asyncio.Queue[Optional[ClusterEvent]]" = asyncio.Queue(EVENTS_MAX)
        reader = asyncio.get_running_loop(), waiting
        self._readers.append(reader)
        try:
            while not self._closed:
                event = await waiting.get()
                if event is None:
                    return
                yield event
        finally:
            self._readers.remove(reader)

    def _run_handlers(self) -> None:
        while True:
            event = self._handled.get()
            if event is None:
                return
            for handler in list(self._handlers):
                try:
                    handler(event)
                except Exception:
                    logger.exception("cluster %s: a handler has failed at %s", self.identifier, event)

    def _tell(self, kind: str, term: int, identifier: str) -> None:
        event = ClusterEvent(kind, term, identifier)
        logger.info("cluster %s: %s", self.identifier, event)
        self._put_event(event)

    def _put_event(self, event: Optional[ClusterEvent]) -> None:
        while True:
            try:
                self._handled.put_nowait(event)
                break
            except queue.Full:
                self._events_lost += 1
                try:
                    self._handled.get_nowait()
                except queue.Empty:
                    pass
        for loop, waiting in list(self._readers):
            try:
                loop.call_soon_threadsafe(_put_newest, waiting, event)
            except RuntimeError:  # the reader's loop is closed
                pass

    # ---- Inside ----

    def _make(
        self, given: Mapping[str, Any], peers: List[Mapping[str, Any]], address: str, profile: int
    ) -> machine.Member:
        settings: Dict[str, Any] = {
            key: int(given[key]) for key in ("heartbeat_ms", "timeout_ms_min", "timeout_ms_max", "priority")
            if given.get(key)
        }
        learner = machine.MEMBERSHIP_LEARNER if given.get("learner") else machine.MEMBERSHIP_VOTER
        room = min(31, max(8, len(peers) + 8))
        try:
            member = machine.Member(
                self.identifier, self._cluster, instance=self._state.instance, profile=profile, address=address,
                membership=learner, without_election=int(bool(given.get("masterless"))), peers_max=room,
                **settings,
            )
        except StatusError as error:
            raise ReplcoreError(
                f"cluster {self.identifier!r}: {error}: timeout_ms_min has to be at least two heartbeats and less "
                "than timeout_ms_max, priority 1 to 255, advertise host:port of at most 63 bytes"
            ) from None
        for peer in peers:
            metadata = _metadata(peer["metadata"], peer["identifier"]) if peer.get("metadata") else None
            place = _join(peer["host"], peer["port"])
            member.add_peer(peer["identifier"], place, metadata, not peer.get("learner"))
        for key in FILES:
            record = self._state.load(key)
            if record:
                member.restore(key, 0, record)
        if given.get("metadata") is not None:
            member.set_metadata(0, _metadata(given["metadata"], self.identifier))
        return member

    def _sound_peers(self, peers: Sequence[Mapping[str, Any]]) -> List[Mapping[str, Any]]:
        """Those that can be used; the others are reported."""
        sound: List[Mapping[str, Any]] = []
        for at, peer in enumerate(peers):
            try:
                number = name_id(peer["identifier"])
                _check_peer(peer)
                if number == self._own_id or any(name_id(one["identifier"]) == number for one in sound):
                    raise ValueError(f"the identifier {peer['identifier']!r} is there already")
                sound.append(peer)
            except (KeyError, TypeError, ValueError, AttributeError, ReplcoreError) as error:
                logger.error("cluster %s: peers[%d] is passed over: %r", self.identifier, at, error)
        if len(peers) and not sound:
            # Alone it would elect itself, beside a leader of the others.
            raise ReplcoreError(f"cluster {self.identifier!r}: none of the peers is sound; see the log of `replcore`")
        return sound

    def _order(self, function: Callable[[], Any]) -> Any:
        """Does it in the member's own thread."""
        if self._closed:
            raise Closed(f"cluster {self.identifier!r} is closed")

        async def run() -> Any:
            try:
                return function()
            finally:
                self._driver.drain()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._driver.start)
        self._loop.run_forever()

    def _publish(self) -> None:
        """Who leads, before anything else is done."""
        until = self._machine.leader_until()
        self._until = 0.0 if self._closed else until / 1_000_000

    def _publish_peers(self) -> None:
        self._peers: Tuple[Peer, ...] = tuple(self._peer_of(view) for view in self._machine.peers())
        leader = self._machine.leader()
        view = self._machine.peer(leader[0]) if leader is not None else None
        self._leader = self._peer_of(view) if view is not None else None
        self._term = self._machine.term()
        with self._changed:
            self._changed.notify_all()

    def _peer_of(self, view: machine.PeerView) -> Peer:
        host, _, port = view.address.rpartition(":")
        try:
            metadata = json.loads(view.metadata) if view.metadata else {}
        except ValueError:
            metadata = {}
        is_self = view.node == self._own_id
        return Peer(
            host.strip("[]"), int(port) if port.isdigit() else 0, view.name,
            metadata if isinstance(metadata, dict) else {}, is_self or view.state != PeerState.DOWN,
            view.membership == machine.MEMBERSHIP_VOTER, view.round_trip_us,
        )


QCluster = Cluster
"""The name that programs written for QCluster import."""


def _tls(given: Mapping[str, Any], identifier: str) -> Optional[Tls]:
    ca, cert, key = (str(given.get(key) or "") for key in TLS_KEYS)
    if not (ca or cert or key):
        return None
    if not (ca and cert and key):
        raise ReplcoreError(
            f"cluster {identifier!r}: TLS takes three files, tls_ca, tls_cert and tls_key, or none")
    return Tls(ca, cert, key, identifier)


def _put_newest(waiting: "asyncio.Queue[Optional[ClusterEvent]]", event: Optional[ClusterEvent]) -> None:
    if waiting.full():
        waiting.get_nowait()
    waiting.put_nowait(event)


def _metadata(metadata: Mapping[str, Any], identifier: str) -> bytes:
    try:
        data = json.dumps(dict(metadata), separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise ReplcoreError(f"metadata of {identifier!r}: {error}; give a dictionary that JSON can say") from None
    if len(data) > _abi.METADATA_BYTES:
        raise ReplcoreError(f"metadata of {identifier!r} has {len(data)} bytes as JSON; at most {_abi.METADATA_BYTES}")
    return data


def _check_peer(peer: Mapping[str, Any]) -> None:
    port = peer["port"]
    if not isinstance(port, int) or not 0 < port < 65536:
        raise ValueError(f"port {port!r} is not 1 to 65535")
    if not isinstance(peer["host"], str) or len(_join(peer["host"], port)) > 63:
        raise ValueError(f"host {peer['host']!r} is no text, or host:port has more than 63 bytes")
    if peer.get("metadata"):
        _metadata(peer["metadata"], peer["identifier"])


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket at the host's first address, IPv4 if it has one."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen at {_join(host, port)}: {error.strerror}; give another "
                      "listen_port, or end who has it") from None
    return listener
