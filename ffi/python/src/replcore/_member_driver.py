"""Carries out what the machine of a member orders: sockets, TLS, the clock and the folder."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import dataclasses
import logging
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

from . import _abi, machine
from ._abi import MemberEvent, OutputKind, Refuse
from ._tls import Tls, certificate_name, reason_of
from .errors import ReplcoreError
from .record import name_id

if TYPE_CHECKING:
    from .cluster import Cluster

logger = logging.getLogger("replcore")

CREDIT_BYTES = 256 << 10
CONNECT_SECONDS = 2.0
"""From the dial to a link, and for those that others open; TLS included."""
ACCEPT_PAUSE_SECONDS = 1.0
"""After a failure to accept, such as too many open files."""
STOP_SECONDS = 2.0
TOLD_MAX = 64
TOLD_SECONDS = 60.0
"""Why there is no link is said at most once in this time, for each reason."""
TLS_ALERTS = (b"\x15\x03\x01", b"\x15\x03\x03")
"""How the answer to a link without TLS begins, of one who wants it; no frame of a member does."""


class Driver:
    """Carries out what the machine orders, in the member's thread."""

    def __init__(self, cluster: "Cluster") -> None:
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
        self._told: Dict[str, float] = {}
        """What was said lately, and until when it is not said again."""
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
        peer, tls = _host_of(accepted), self._tls()
        self._accepting += 1
        try:
            making = self._loop.connect_accepted_socket(
                lambda: _Connection(self, None), accepted, ssl=None if tls is None else tls.server)
            await asyncio.wait_for(making, CONNECT_SECONDS)
        except (OSError, asyncio.TimeoutError) as error:
            self.connections_refused += 1
            if isinstance(error, ssl.SSLError):
                self.tell(f"a connection from {peer} is refused: {reason_of(error)}")
        finally:
            self._accepting -= 1

    def _tls(self) -> Optional[Tls]:
        """TLS of the files as they are now; None without."""
        tls = self._cluster._tls
        try:
            if tls is not None and tls.reload():
                logger.info("cluster %s: the TLS files have changed and are in force", self._cluster.identifier)
        except ReplcoreError as error:
            logger.error("cluster %s: %s; what was read before stays in force", self._cluster.identifier, error)
        return tls

    def tell(self, text: str) -> None:
        """Says why there is no link, but not each time: it is tried again and again."""
        now = time.monotonic()
        if now < self._told.get(text, 0.0):
            return
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told[text] = now + TOLD_SECONDS
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
            view = self._machine.peer(dialed.node)
            wanted = view.name if view is not None else "who was dialled"
            return 0, f"the certificate at {place} is for {name}, not for {wanted}"
        return name_id(name), ""

    def down(self, link: "_Connection") -> None:
        if self._links.pop(link.number, None) is None:
            return
        self._machine.handle_link_down(self.now(), link.number)
        self._free.append(link.number)
        self.drain()

    async def _dial(self, dial: "_Dial") -> None:
        host, _, port = dial.address.rpartition(":")
        tls = self._tls()
        try:
            # No name of a host is sent and none is looked at: the certificate names a member.
            making = self._loop.create_connection(
                lambda: _Connection(self, dial), host.strip("[]"), int(port),
                ssl=None if tls is None else tls.client, server_hostname=None if tls is None else "")
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
        self._cluster._tell(kind.name.lower(), output.position, name)


@dataclasses.dataclass(frozen=True)
class _Dial:
    """What a DIAL orders to open."""

    number: int
    address: str
    node: int
    """Who is to be found there."""


class _Connection(asyncio.Protocol):
    """One link."""

    def __init__(self, driver: Driver, dialed: Optional[_Dial]) -> None:
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
            why = "it does not say why; its log may, if this goes on"
            if isinstance(error, ssl.SSLError):
                why = reason_of(error)
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


def _host_of(accepted: socket.socket) -> str:
    try:
        return str(accepted.getpeername()[0])
    except OSError:
        return "nobody"
