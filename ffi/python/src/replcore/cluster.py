"""A member of a cluster: :class:`Cluster`, and :class:`QCluster`, its other name."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import dataclasses
import json
import logging
import pathlib
import queue
import socket
import ssl
import threading
import time
from typing import Any, AsyncIterator, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from . import _abi, machine
from ._abi import MemberEvent, OutputKind, PeerState, Refuse
from ._member_state import FILES, StateFolder, default_folder
from ._tls import Tls, certificate_name, reason_of
from .errors import Closed, ReplcoreError, StatusError
from .record import name_id

logger = logging.getLogger("replcore")

CREDIT_BYTES = 256 << 10
CONNECT_SECONDS = 2.0
"""From the dial to a link, and for those that others open; TLS included."""
ACCEPT_PAUSE_SECONDS = 1.0
"""After a failure to accept, such as too many open files."""
STOP_SECONDS = 2.0
EVENTS_MAX = 1000
"""Events that wait for a slow handler; the oldest are dropped and counted."""
PROFILES = {"lan": machine.PROFILE_LAN, "wan": machine.PROFILE_WAN, "battery": machine.PROFILE_BATTERY}
KEYS = {
    "identifier", "listen_host", "listen_port", "peers", "cluster", "metadata", "advertise", "profile",
    "heartbeat_ms", "timeout_ms_min", "timeout_ms_max", "masterless", "learner", "priority", "data_folder",
    "tls_ca", "tls_cert", "tls_key",
}
TLS_KEYS = ("tls_ca", "tls_cert", "tls_key")
TLS_ALERTS = (b"\x15\x03\x01", b"\x15\x03\x03")
"""How the answer to a link without TLS begins, of one who wants it; no frame of a member does."""


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
        self._driver = _Driver(self)
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


class _Driver:
    """Carries out what the machine orders, in the member's thread."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._machine = cluster._machine
        self._loop = cluster._loop
        self._links: Dict[int, _Connection] = {}
        self._free = list(range(self._machine.links_max))
        self._wake: Optional[asyncio.TimerHandle] = None
        self._draining = False
        self._stopping = False
        self._accepting = 0
        self.connections_refused = 0
        self._told = ""
        self._tasks: "set[asyncio.Task[None]]" = set()
        self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="replcore-vote")

    def now(self) -> int:
        return time.monotonic_ns() // 1000

    def start(self) -> None:
        self._spawn(self._serve())
        self._machine.handle_timeout(self.now())
        self.drain()

    async def _serve(self) -> None:
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(self._cluster._socket)
            except OSError as error:
                self.tell(f"cannot accept: {error.strerror}; it goes on in a moment")
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            # Those that say nothing are not to take the place of links.
            if self._stopping or self._accepting >= self._machine.links_max:
                self.connections_refused += 1
                accepted.close()
                continue
            self._spawn(self._accept(accepted))

    async def _accept(self, accepted: socket.socket) -> None:
        peer = _host_of(accepted)
        self._accepting += 1
        try:
            making = self._loop.connect_accepted_socket(
                lambda: _Connection(self, None), accepted, ssl=self._tls_of("server"))
            await asyncio.wait_for(making, CONNECT_SECONDS)
        except (OSError, asyncio.TimeoutError) as error:
            self.connections_refused += 1
            if isinstance(error, ssl.SSLError):
                self.tell(f"a connection from {peer} is refused: {reason_of(error)}")
        finally:
            self._accepting -= 1

    def _tls_of(self, end: str) -> Optional[ssl.SSLContext]:
        """The context of this end of a link, of the files as they are now; None without TLS."""
        tls = self._cluster._tls
        if tls is None:
            return None
        try:
            if tls.reload():
                logger.info("cluster %s: the TLS files have changed and are in force", self._cluster.identifier)
        except ReplcoreError as error:
            logger.error("cluster %s: %s; what was read before stays in force", self._cluster.identifier, error)
        return tls.server if end == "server" else tls.client

    def tell(self, text: str) -> None:
        """Says why there is no link, once: it is tried again and again."""
        if text != self._told:
            self._told = text
            logger.warning("cluster %s: %s", self._cluster.identifier, text)

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        self._stopping = True
        self._machine.stop(self.now())
        self.drain()
        deadline = self._loop.time() + STOP_SECONDS
        while self._links and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        for link in list(self._links.values()):
            link.transport.abort()
        if self._wake is not None:
            self._wake.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._cluster._socket.close()
        self._writer.shutdown(wait=True)

    # ---- Links ----

    def up(self, link: "_Connection", dialed: Optional["_Dial"]) -> None:
        identity, wrong = self._identity(link.transport, dialed)
        if wrong or not self._free or self._stopping:
            link.transport.abort()
            if wrong:
                self.tell(wrong)
            if dialed is None:
                self.connections_refused += 1
            elif not self._stopping:
                self._machine.handle_dial_failed(self.now(), dialed.number)
                self.drain()
            return
        link.number = self._free.pop()
        self._links[link.number] = link
        place = machine.NOT_DIALED if dialed is None else dialed.number
        self._machine.handle_link_up(self.now(), link.number, place, identity=identity)
        self._machine.handle_writable(self.now(), link.number, CREDIT_BYTES)
        self.drain()

    def _identity(self, transport: asyncio.Transport, dialed: Optional["_Dial"]) -> Tuple[int, str]:
        """Who the certificate at the other end says it is, 0 without TLS; and what is wrong with that."""
        if self._cluster._tls is None:
            return 0, ""
        place = dialed.address if dialed is not None else "a connection"
        try:
            name = certificate_name(transport.get_extra_info("peercert"))
        except ReplcoreError as error:
            return 0, f"{place}: {error}"
        if dialed is not None and name_id(name) != dialed.node:
            wanted = self._machine.peer(dialed.node)
            return 0, f"the certificate at {place} is for {name}, not for {wanted.name if wanted else 'who was dialled'}"
        return name_id(name), ""

    def down(self, link: "_Connection") -> None:
        if self._links.pop(link.number, None) is None:
            return
        self._machine.handle_link_down(self.now(), link.number)
        self._free.append(link.number)
        self.drain()

    async def _dial(self, dial: "_Dial") -> None:
        host, _, port = dial.address.rpartition(":")
        context = self._tls_of("client")
        try:
            # No name of a host is sent and none is looked at: the certificate names a member.
            making = self._loop.create_connection(
                lambda: _Connection(self, dial), host.strip("[]"), int(port), ssl=context,
                server_hostname=None if context is None else "")
            await asyncio.wait_for(making, CONNECT_SECONDS)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            if isinstance(error, ssl.SSLError):
                self.tell(f"no link to {dial.address}: {reason_of(error)}")
            if not self._stopping:
                self._machine.handle_dial_failed(self.now(), dial.number)
                self.drain()

    # ---- Orders ----

    def drain(self) -> None:
        """Publishes who leads, then does what the machine orders until it is idle."""
        self._cluster._publish()
        if self._draining:
            return
        self._draining = True
        try:
            while (output := self._machine.poll()).kind != OutputKind.IDLE:
                self._do(output)
                self._cluster._publish()
        finally:
            self._draining = False
        if self._wake is not None:
            self._wake.cancel()
        self._wake = None
        if output.next != _abi.NEVER and not self._loop.is_closed():
            delay = max(0.0, (output.next - self.now()) / 1_000_000)
            self._wake = self._loop.call_later(delay, self._timeout)

    def _timeout(self) -> None:
        self._machine.handle_timeout(self.now())
        self.drain()

    def _do(self, output: Any) -> None:
        kind, link = output.kind, self._links.get(output.link)
        if kind == OutputKind.SEND and link is not None:
            link.write(self._machine.payload(output))
        elif kind == OutputKind.PERSIST:
            self._spawn(self._persist(output.key, output.token, self._machine.payload(output)))
        elif kind == OutputKind.EVENT:
            self._event(output)
        elif kind == OutputKind.DIAL:
            self._spawn(self._dial(_Dial(output.dial, *self._machine.dial_target(output.dial))))
        elif kind == OutputKind.HANGUP and link is not None:
            link.transport.close()
            self._loop.call_later(STOP_SECONDS, link.transport.abort)
        elif kind == OutputKind.RESUME and link is not None:
            self._loop.call_soon(link.offer)
        elif kind in (OutputKind.SKIP_BYTES, OutputKind.TAKE_CALL) and link is not None:
            link.owed = output.len
        elif kind == OutputKind.HALTED:
            reason = self._machine.payload(output).decode(errors="replace")
            logger.critical("cluster %s: a broken invariant, please report it: %s", self._cluster.identifier, reason)

    async def _persist(self, key: int, token: int, record: bytes) -> None:
        try:
            await self._loop.run_in_executor(self._writer, self._cluster._state.store, key, record)
        except (OSError, RuntimeError) as error:
            logger.error("cluster %s: %s: %s; it does not vote until that is mended", self._cluster.identifier,
                         self._cluster._state.folder, error)
            self._machine.handle_failed(self.now(), token, machine.FAILURE_IO)
        else:
            self._machine.handle_persisted(self.now(), token)
        self.drain()

    def _event(self, output: Any) -> None:
        kind = MemberEvent(output.event)
        if kind == MemberEvent.OTHER:
            return
        self._cluster._publish()
        self._cluster._publish_peers()
        if kind in (MemberEvent.BECAME_LEADER, MemberEvent.LOST_LEADERSHIP):
            name = self._cluster.identifier
        else:
            view = self._machine.peer(output.node) if output.node else None
            name = view.name if view is not None else ""
        if kind == MemberEvent.REFUSED:
            reasons = {one.value: one.name.replace("_", " ").lower() for one in Refuse}
            self.tell(f"a link with {name or 'a node'} was refused: {reasons.get(output.reason, output.reason)}")
        event = ClusterEvent(kind.name.lower(), output.position, name)
        logger.info("cluster %s: %s", self._cluster.identifier, event)
        self._cluster._put_event(event)


@dataclasses.dataclass(frozen=True)
class _Dial:
    """What a DIAL orders to open."""

    number: int
    address: str
    node: int
    """Who is to be found there."""


class _Connection(asyncio.Protocol):
    """One link."""

    def __init__(self, driver: _Driver, dialed: Optional[_Dial]) -> None:
        self._driver = driver
        self._dialed = dialed
        self.number = -1
        self.owed = 0
        self._input = b""
        self._unpaid = 0
        self._is_up = self._heard = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._is_up = True
        transport.set_write_buffer_limits(high=0)
        self._driver.up(self, self._dialed)

    def connection_lost(self, error: Optional[Exception]) -> None:
        self._is_up = False
        if self._dialed is not None and not self._heard:
            # In TLS 1.3 the one who dials is through before the other has looked at its certificate.
            alert = isinstance(error, ssl.SSLError)
            why = reason_of(error) if alert else "it does not say why; its log may, if this goes on"
            self._driver.tell(f"{self._dialed.address} has closed the link at once: {why}")
        self._driver.down(self)

    def data_received(self, data: bytes) -> None:
        if self._dialed is not None and not self._heard and data.startswith(TLS_ALERTS):
            self._driver.tell(f"{self._dialed.address} wants TLS: give tls_ca, tls_cert and tls_key")
        self._heard = True
        self._input += data
        self.offer()

    def offer(self) -> None:
        """Gives the machine what came, as far as it takes it."""
        while self._is_up and self.number >= 0:
            skipped = min(self.owed, len(self._input))
            self.owed, self._input = self.owed - skipped, self._input[skipped:]
            if self.owed:
                return
            address = ctypes.cast(ctypes.c_char_p(self._input), ctypes.c_void_p).value or 0
            taken = self._driver._machine.handle_recv(
                self._driver.now(), self.number, address, len(self._input)
            )
            self._input = self._input[taken:]
            self._driver.drain()
            if not taken and not self.owed:
                return

    def write(self, data: bytes) -> None:
        self._unpaid += len(data)
        self.transport.write(data)
        if not self.transport.get_write_buffer_size():
            self._driver._loop.call_soon(self._pay)

    def resume_writing(self) -> None:
        self._pay()

    def _pay(self) -> None:
        """Gives the machine credit for what the connection has taken."""
        if not self._is_up or self.number < 0:
            return
        paid = self._unpaid - self.transport.get_write_buffer_size()
        if paid > 0:
            self._unpaid -= paid
            self._driver._machine.handle_writable(self._driver.now(), self.number, paid)
            self._driver.drain()


def _tls(given: Mapping[str, Any], identifier: str) -> Optional[Tls]:
    files = [given.get(key) or "" for key in TLS_KEYS]
    if not any(files):
        return None
    if not all(files):
        raise ReplcoreError(
            f"cluster {identifier!r}: TLS takes three files, tls_ca, tls_cert and tls_key, or none")
    return Tls(*map(str, files), identifier)


def _host_of(accepted: socket.socket) -> str:
    try:
        return str(accepted.getpeername()[0])
    except OSError:
        return "nobody"


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
