"""A leaf for asyncio: :class:`Leaf`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import dataclasses
import logging
import pathlib
import ssl as tls
from typing import Any, AsyncIterator, Callable, Iterable, List, Mapping, Optional, Sequence, Set, Tuple, Union

from . import _abi, machine
from ._abi import LeafEvent, OutputKind, Refuse, replcore_records
from ._library import check, library
from ._log import Batch, Log, digest_of, is_full_disk
from ._noise import Identity, SecuredLine
from .errors import Closed, InvalidMessage, LogError, LogFull, QueueFull, ReplcoreError
from .record import (
    CLASSES,
    DEFAULT_CLASS,
    Encoder,
    Message,
    ReceivedMessage,
    check_record,
    message_id,
    name_id,
    received,
)

logger = logging.getLogger("replcore")

CREDIT_BYTES = 1 << 20
"""What the machine may have written and the connection not yet taken."""
POST_TURN = 500
"""Messages of one `post_many` between two looks at the loop."""
LAZY_COMMIT_SECONDS = 0.2
CONNECT_SECONDS = 5.0
FRAME_BYTES_MAX = 65_536
"""What the machine takes when it is not told; see ``replcore_leaf_config``."""
CLOSE_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class LeafStatus:
    """How a leaf is."""

    connected: bool
    """Registered at its hub now."""
    hub: str
    """The name of the hub; empty without a link."""
    queued_messages: int
    """Posted here and not yet stored at the hub."""
    queued_bytes: int
    received_messages: int
    """Received and not yet acknowledged by the program."""
    posted: int
    """Posted since the leaf's log was made."""
    round_trip_us: int
    """Of the last ping, in microseconds; 0 when not known."""
    torn_bytes: int
    """Cut off at the end of the log at its opening: what a crash had left half written."""
    counters: Mapping[str, int]
    """What the links have counted; see ``replcore_link_stats`` in the C header."""


class Leaf:
    """A leaf: it posts to a hub and receives from it, over a link that may fail, from a store of its own.

    ::

        async with replcore.Leaf("till-7", broker="localhost:8080", path="till-7.data") as leaf:
            await leaf.post(b"sold: 2 apples", type="sale")
            async for message in leaf.messages():
                print(message.origin, message.type, message.body)

    What was posted is on this machine's disk before :meth:`post` returns, and goes to the hub when there is
    a link, however often the program, the machine or the line fails. What the hub has for this leaf is in
    the same files before :meth:`messages` shows it, and comes again after a crash until it was acknowledged.
    The leaf connects again by itself, for ever.

    Args:
        name: The leaf's name, 1 to 63 of ``A-Z a-z 0-9 . _ - : /``. One leaf of a name may run at a time.
        broker: Where the hub is: ``host:port``, ``unix:/path``, or ``noise:host:port`` for a line without TLS that
            only the two ends can read.
        path: The folder of the leaf's files; made when it is not there. Each leaf needs its own.
        ssl: An ``ssl.SSLContext`` with the leaf's certificate, for a hub that has TLS.
        server_hostname: The name in the hub's certificate, when it is not the broker's host.
        noise_keys: With ``noise:``, the file with the keys of this leaf and its hub, as ``replcore key`` makes it; read
            when the object is made.
        queue_messages_max: Messages kept for the hub, default 1,000,000; at the limit :class:`QueueFull`.
        queue_bytes_max: The same in bytes of records, default 256 MiB.
        received_messages_max: Received and not acknowledged, default 10,000; at the limit no more are
            taken from the hub, which keeps them.
        message_bytes_max: Longest message that is posted or taken, default 16 MiB.
        idempotency_keys_max: How many keys of posts are remembered, default 10,000.
        segment_bytes: Size of one file, default 16 MiB.
        settings: Further settings of the machine; see :class:`replcore.machine.Leaf`.

    One event loop uses a leaf. Syncs are done by a thread of its own; everything that waits while one is
    under way shares the next.
    """

    def __init__(
        self,
        name: str,
        *,
        broker: str,
        path: Union[str, "pathlib.Path"],
        ssl: Optional[tls.SSLContext] = None,
        server_hostname: Optional[str] = None,
        noise_keys: Optional[Union[str, "pathlib.Path"]] = None,
        queue_messages_max: int = 1_000_000,
        queue_bytes_max: int = 256 << 20,
        received_messages_max: int = 10_000,
        message_bytes_max: int = 16 << 20,
        idempotency_keys_max: int = 10_000,
        segment_bytes: int = 16 << 20,
        **settings: Any,
    ) -> None:
        self.name = name
        self._own_id = name_id(name)
        self._is_secured = broker.startswith(NOISE)
        self._broker = _parse_broker(broker[len(NOISE):] if self._is_secured else broker)
        if self._is_secured != (noise_keys is not None) or (self._is_secured and ssl is not None):
            raise ReplcoreError(
                f"leaf {name!r}: a broker noise:host:port and noise_keys go together, and without ssl")
        self._identity = Identity(pathlib.Path(noise_keys), name) if noise_keys is not None else None
        self._path = pathlib.Path(path)
        self._ssl, self._server_hostname = ssl, server_hostname
        self._queue_messages_max, self._queue_bytes_max = queue_messages_max, queue_bytes_max
        self._received_messages_max = received_messages_max
        self._message_bytes_max = message_bytes_max
        self._idempotency_keys_max, self._segment_bytes = idempotency_keys_max, segment_bytes
        self._settings = settings
        self._encoder = Encoder(name, self._own_id)
        self._log: Optional[Log] = None
        self._error: Optional[ReplcoreError] = None
        self._closing = False
        self._reading = False

    # ---- Life ----

    async def __aenter__(self) -> "Leaf":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Opens the log and begins to connect. ``async with`` does this.

        Raises:
            LogError: the folder cannot be used; the text says why and what to do.
        """
        if self._log is not None:
            raise ReplcoreError(f"leaf {self.name!r} was started already; make another object")
        self._loop = asyncio.get_running_loop()
        # Before the log, so that a wrong setting leaves nothing open.
        machine.Leaf(self.name, instance=1, epoch=1, **self._settings)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=f"replcore-{self.name}")
        self._log = await self._in_thread(self._open)
        self._encoder.stamp = self._log.state.stamp
        self._machine = machine.Leaf(
            self.name, instance=self._log.state.instance, epoch=self._log.state.epoch, **self._settings
        )
        self._link = _Link(self)
        self._changed = asyncio.Event()
        self._arrived = asyncio.Event()
        self._commit_wanted = asyncio.Event()
        self._may_post = asyncio.Event()
        self._may_post.set()
        self._lazy: Optional[asyncio.TimerHandle] = None
        self._wake: Optional[asyncio.TimerHandle] = None
        self._writing = False
        self._withheld: List[Callable[[], None]] = []
        self._asked: List[Callable[[], None]] = []
        self._waiting: Set["asyncio.Future[None]"] = set()
        self._committer = self._loop.create_task(self._commit())
        self._machine.handle_timeout(self._now())
        self._link.drain()

    def _open(self) -> Log:
        limit = 4 + (self._queue_bytes_max + (64 << 20)) // self._segment_bytes
        return Log(
            self._path, self._own_id, segment_bytes=self._segment_bytes, segments_max=limit,
            keys_max=self._idempotency_keys_max, record_bytes_max=self._message_bytes_max + (64 << 10),
        )

    async def close(self) -> None:
        """Says good-bye to the hub, makes all durable and ends. Posts under way are finished first."""
        if self._log is None or self._closing:
            return
        self._closing = True
        if self._error is None:
            self._machine.stop(self._now())
            self._link.drain()
            await self._link.ended(CLOSE_SECONDS)
        self._link.abort()
        self._commit_wanted.set()
        await self._committer
        for timer in (self._lazy, self._wake):
            if timer is not None:
                timer.cancel()
        self._tell_changed()
        self._arrived.set()
        self._thread.shutdown(wait=False)
        self._log.close()

    def _check_open(self) -> Log:
        if self._error is not None:
            raise self._error
        if self._log is None:
            raise Closed(f"leaf {self.name!r} is not started; use it inside `async with`")
        if self._closing:
            raise Closed(f"leaf {self.name!r} is closed")
        return self._log

    def _now(self) -> int:
        return int(self._loop.time() * 1_000_000)

    async def _in_thread(self, function: Callable[..., Any], *given: Any) -> Any:
        return await self._loop.run_in_executor(self._thread, function, *given)

    def _fail(self, error: ReplcoreError) -> None:
        """Something that cannot be gone on after."""
        if self._error is None:
            logger.error("leaf %s ends: %s", self.name, error)
            self._error = error
        self._link.abort()
        self._commit_wanted.set()
        self._may_post.set()
        self._arrived.set()
        self._tell_changed()

    # ---- Posting ----

    async def post(
        self,
        body: bytes,
        *,
        type: str = "",
        key: bytes = b"",
        message_class: int = DEFAULT_CLASS,
        content_type: str = "",
        to: Sequence[str] = (),
        headers: Optional[Mapping[str, bytes]] = None,
        idempotency_key: bytes = b"",
        expires: Optional[float] = None,
    ) -> str:
        """Posts one message and returns its id once it is on disk here. See :class:`Message` for the parts.

        Posts at the same time share one sync, so many tasks may post at once; for many messages of one task
        :meth:`post_many` is the fast way. When a post is cancelled the message may have been posted.

        Raises:
            QueueFull: the hub has been away for long; nothing was posted.
            InvalidMessage: a part is too long or of a wrong form; nothing was posted.
            LogFull: no space on the disk; nothing was posted.
            Closed: the leaf is not running.
        """
        message = Message(
            body, type, key, message_class, content_type, to, headers or {}, idempotency_key, expires
        )
        return (await self.post_many([message]))[0]

    async def post_many(
        self, messages: Iterable[Union[bytes, Message]], *, type: str = ""
    ) -> List[str]:
        """Posts messages in their order and returns their ids once all are on disk here.

        Bodies that are given as bytes are of the given type. All errors of :meth:`post`; when one is raised,
        messages before the one that it is about may have been posted: give each an idempotency key if that
        matters, and post again.
        """
        ids: List[str] = []
        pending: List["asyncio.Future[None]"] = []
        common = Message(b"", type=type)
        turn = _Turn()
        self._check_open()
        try:
            for count, given in enumerate(messages):
                if turn.left == 0 or not self._may_post.is_set():
                    await self._next_turn(turn, pending, count > 0)
                message = common if isinstance(given, bytes) else given
                if not isinstance(message, Message):
                    raise InvalidMessage(f"message {count} is of {given.__class__.__name__}; give bytes or a Message")
                ids.append(self._add(message, given if isinstance(given, bytes) else message.body, turn))
        finally:
            # Also after an error: what was added before it is posted.
            if pending:
                self._commit_wanted.set()
                await asyncio.gather(*pending)
        return ids

    async def _next_turn(self, turn: "_Turn", pending: List["asyncio.Future[None]"], give_way: bool) -> None:
        """Lets others have the loop, and looks how much may be posted before the next look."""
        if give_way:
            self._commit_wanted.set()
            await asyncio.sleep(0)
        await self._may_post.wait()
        log = self._check_open()
        messages, held = log.queued
        turn.left, turn.prepared = POST_TURN, None
        turn.messages_left = self._queue_messages_max - messages - len(log.batch.outgoing)
        turn.bytes_left = self._queue_bytes_max - held - len(log.batch.data)
        future = self._loop.create_future()
        # Of two errors only one is raised by the post; the other was not forgotten.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        pending.append(future)
        log.batch.after.append(_Resolve(future))

    def _add(self, message: Message, body: bytes, turn: "_Turn") -> str:
        """Adds a message to the next commit."""
        log, message_class = self._check_open(), message.message_class
        turn.left -= 1
        if message.idempotency_key:
            known = log.keys.get(digest_of(message.idempotency_key))
            if known is not None:
                return message_id(self.name, *known)
        if not 0 <= message_class < CLASSES:
            raise InvalidMessage(f"message_class {message_class}: has to be 0, 1, 2 or 3")
        if len(body) > self._message_bytes_max:
            raise InvalidMessage(f"a body of {len(body)} bytes; message_bytes_max is {self._message_bytes_max}")
        turn.messages_left -= 1
        turn.bytes_left -= len(body)
        if turn.messages_left < 0 or turn.bytes_left < 0:
            messages, held = log.queued
            raise QueueFull(
                f"leaf {self.name!r} keeps {messages} messages of {held} bytes for the hub, which has not "
                "taken them: see whether it runs and is reached, or raise queue_messages_max or queue_bytes_max"
            )
        if message is not turn.prepared:
            self._encoder.prepare(message, log.state.epoch)
            turn.prepared = message
        seq = log.seq_next[message_class]
        log.add_outgoing(self._encoder.encode(body, seq), message_class, message.idempotency_key)
        if log.batch.is_full():
            self._may_post.clear()
            self._commit_wanted.set()
        return message_id(self.name, log.state.epoch, message_class, seq)

    # ---- Committing ----

    async def _commit(self) -> None:
        """Writes batch after batch, as long as there is something to write."""
        log = self._log
        assert log is not None
        while True:
            await self._commit_wanted.wait()
            self._commit_wanted.clear()
            while self._error is None and (log.batch.after or not log.batch.is_empty() or log.is_dirty):
                await self._commit_one(log)
            self._answer_asked()
            if self._error is not None:
                _resolve(log.batch, self._error)
            if self._closing or self._error is not None:
                return

    async def _commit_one(self, log: Log) -> None:
        if log.batch.is_empty() and not log.is_dirty:
            # What waits depends on nothing but what was written before.
            batch, log.batch = log.batch, Batch()
            _resolve(batch, None)
            return self._link.drain()
        log.state.stamp = self._encoder.stamp
        write = log.seal()
        self._may_post.set()
        self._writing = True
        error: Optional[ReplcoreError] = None
        try:
            await self._in_thread(log.write, write)
        except OSError as problem:
            where = f"{self._path}: {problem.strerror}"
            if is_full_disk(problem):
                error = LogFull(f"{where}; free some space, then post again")
                _resolve(log.fail(write), error)
            else:
                error = LogError(f"{where}; see to the disk, then start the leaf again")
                self._fail(error)
        finally:
            self._writing = False
        if error is None:
            log.apply(write)
            self._link.grown()
            self._arrived.set()
        _resolve(write.batch, error)
        self._tell_changed()
        if self._error is None:
            self._link.drain()

    def _commit_lazily(self) -> None:
        """Something is to be written that nobody waits for."""
        if self._lazy is None and not self._closing:
            self._lazy = self._loop.call_later(LAZY_COMMIT_SECONDS, self._commit_now)

    def _commit_now(self) -> None:
        self._lazy = None
        self._commit_wanted.set()

    def _answer_asked(self) -> None:
        """Answers what may only be answered when nothing is under way to the disk."""
        asked, self._asked = self._asked, []
        for answer in asked:
            answer()
        if asked and self._error is None:
            self._link.drain()

    # ---- Receiving ----

    async def messages(
        self, *, after: Optional[int] = None, acknowledge: bool = True
    ) -> AsyncIterator[ReceivedMessage]:
        """The messages that the hub has for this leaf, in order, waiting for more; ends when the leaf closes.

        Goes on after the last one acknowledged. A message is acknowledged when the next is asked for, that is
        when the body of the ``async for`` was gone through for it; with ``acknowledge=False`` it is when you
        call :meth:`acknowledge`. After a crash what was not acknowledged comes again. A program that must do
        each exactly once keeps the ``number`` of the last in the same transaction as its effect, and gives it
        as `after` when it starts; what is up to there is acknowledged and not shown.
        """
        log = self._check_open()
        if self._reading:
            raise ReplcoreError(f"leaf {self.name!r} is being read already; one reader at a time")
        self._reading = True
        try:
            if after is not None:
                await self._wait_until(lambda: log.inbox.next > after or log.state.acknowledged > after)
                self.acknowledge(after)
            number = log.state.acknowledged
            while await self._wait_for(number):
                message = received(log.read(*log.inbox.place(number)), number)
                yield message
                if acknowledge:
                    self.acknowledge(number)
                number += 1
        finally:
            self._reading = False

    async def _wait_for(self, number: int) -> bool:
        while not self._closing:
            log = self._check_open()
            if number < log.inbox.next:
                return True
            self._arrived.clear()
            await self._arrived.wait()
        return False

    def acknowledge(self, message: Union[ReceivedMessage, int]) -> None:
        """The program is done with this message and all before it. On disk soon after.

        What a crash takes back is only that: those messages come again.
        """
        number = message if isinstance(message, int) else message.number
        log = self._check_open()
        if number >= log.inbox.next:
            raise ValueError(f"message {number} was not received yet; the last is {log.inbox.next - 1}")
        log.acknowledge(number + 1)
        self._commit_wanted.set()
        if self._withheld and self._unacknowledged(log) < self._received_messages_max:
            withheld, self._withheld = self._withheld, []
            for report in withheld:
                report()
            self._link.drain()

    @staticmethod
    def _unacknowledged(log: Log) -> int:
        return log.inbox.next - log.state.acknowledged

    def _report_taken(self, report: Callable[[], None]) -> None:
        log = self._check_open()
        if self._withheld or self._unacknowledged(log) >= self._received_messages_max:
            self._withheld.append(report)
        else:
            report()

    # ---- How it stands ----

    def is_connected(self) -> bool:
        """Whether the leaf is registered at its hub now."""
        return self._error is None and not self._closing and self._machine.is_connected()

    def status(self) -> LeafStatus:
        """How the leaf is; cheap."""
        log = self._check_open()
        queued_messages, queued_bytes = log.queued
        return LeafStatus(
            connected=self.is_connected(),
            hub=self._machine.peer(),
            queued_messages=queued_messages,
            queued_bytes=queued_bytes,
            received_messages=self._unacknowledged(log),
            posted=sum(backlog.next for backlog in log.outgoing),
            round_trip_us=self._machine.round_trip_us(),
            torn_bytes=log.torn_bytes,
            counters=self._machine.stats(),
        )

    async def wait_connected(self) -> None:
        """Waits until the leaf is registered at its hub."""
        await self._wait_until(self.is_connected)

    async def wait_drained(self) -> None:
        """Waits until the hub has stored all that was posted here."""
        await self._wait_until(lambda: self._check_open().queued[0] == 0)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while True:
            self._check_open()
            if condition():
                return
            self._changed.clear()
            await self._changed.wait()

    def _tell_changed(self) -> None:
        self._changed.set()


class _Turn:
    """What a post may still add before it looks at the loop again."""

    def __init__(self) -> None:
        self.left = self.messages_left = self.bytes_left = 0
        self.prepared: Optional[Message] = None
        """The message whose attributes the encoder has."""


class _Resolve:
    """Ends the wait of a post."""

    def __init__(self, future: "asyncio.Future[None]") -> None:
        self.future = future

    def __call__(self, error: Optional[ReplcoreError]) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


def _resolve(batch: Batch, error: Optional[ReplcoreError]) -> None:
    after, batch.after = batch.after, []
    for one in after:
        one(error)


class _Link(asyncio.Protocol):
    """The connection to the hub: carries out what the machine orders."""

    def __init__(self, leaf: Leaf) -> None:
        self._leaf = leaf
        self._machine = leaf._machine
        self._transport: Optional[asyncio.Transport] = None
        self._line: Optional[SecuredLine] = None
        """Perhaps without keys yet."""
        self._dialling: Optional["asyncio.Task[None]"] = None
        self._is_up = False
        self._life = 0
        """Counts connections: what comes late from an earlier one is thrown away."""
        self._input = b""
        self._owed = 0
        self._order: Optional[Tuple[Any, ...]] = None
        self._unpaid = 0
        """Bytes written that the machine was not given credit for again."""
        self._draining = self._offering = False
        self._watched: "dict[int, int]" = {}
        """Stream by class."""
        self._parts: "dict[Tuple[int, int, int], bytes]" = {}
        self._down = asyncio.Event()
        self._down.set()

    @property
    def _log(self) -> Log:
        log = self._leaf._log
        assert log is not None
        return log

    # ---- The connection ----

    def _dial(self) -> None:
        self._dialling = self._leaf._loop.create_task(self._connect())

    async def _connect(self) -> None:
        leaf, loop = self._leaf, self._leaf._loop
        host, port = leaf._broker
        options: "dict[str, Any]" = {}
        frame_bytes_max = leaf._settings.get("frame_bytes_max") or FRAME_BYTES_MAX
        identity = leaf._identity

        def made() -> asyncio.Protocol:
            if identity is None:
                return self
            self._line = SecuredLine(self, identity, frame_bytes_max)
            return self._line

        if leaf._ssl is not None:
            options = {"ssl": leaf._ssl, "server_hostname": leaf._server_hostname or host}
        try:
            if port is None:
                making: Any = loop.create_unix_connection(made, host, **options)
            else:
                making = loop.create_connection(made, host, port, **options)
            await asyncio.wait_for(making, CONNECT_SECONDS)
        except (OSError, asyncio.TimeoutError, tls.SSLError) as error:
            self._dial_failed(logging.INFO, str(error) or "no answer in time")

    def _dial_failed(self, level: int, why: str) -> None:
        leaf = self._leaf
        logger.log(level, "leaf %s: no connection to %s: %s", leaf.name, leaf._broker[0], why)
        if leaf._error is None and not leaf._closing:
            self._machine.handle_dial_failed(leaf._now(), 0)
            self.drain()

    def not_secured(self, why: str) -> None:
        """The handshake of a secured line has failed."""
        self._dial_failed(logging.WARNING, why)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        leaf = self._leaf
        if leaf._error is not None or leaf._closing:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=0)
        self._transport, self._is_up = transport, True
        self._down.clear()
        self._life += 1
        self._input, self._order, self._owed, self._unpaid = b"", None, 0, 0
        kind, who = machine.TRANSPORT_STREAM, 0
        if leaf._identity is not None:
            kind, who = machine.TRANSPORT_DATAGRAM, name_id(leaf._identity.hub)
        self._machine.handle_link_up(leaf._now(), 0, 0, kind, who)
        self._machine.handle_writable(leaf._now(), 0, CREDIT_BYTES)
        self.drain()

    def connection_lost(self, error: Optional[Exception]) -> None:
        if not self._is_up:
            return
        self._is_up, self._transport = False, None
        self._life += 1
        self._watched.clear()
        self._parts.clear()
        self._leaf._withheld.clear()
        self._down.set()
        self._leaf._tell_changed()
        if self._leaf._error is None:
            self._machine.handle_link_down(self._leaf._now(), 0)
            self.drain()

    async def ended(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._down.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    def abort(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        if self._line is not None:
            self._line.abort()
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._input += data
        self._offer()

    def frame_received(self, frame: bytes) -> None:
        """A frame of a secured line, where frames may be lost: what is not taken of it now never comes."""
        self._input = frame
        self._offer()
        order, self._order, self._input = self._order, None, b""
        if order and self._is_up:
            self._machine.handle_refused(self._leaf._now(), 0, order[0], _abi.FAILURE_CORRUPT)
            self.drain()

    def resume_writing(self) -> None:
        self._pay()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._unpaid += len(data)
            self._transport.write(data)

    def _pay(self) -> None:
        """Gives the machine credit for what the connection has taken."""
        if self._transport is None or not self._unpaid:
            return
        paid = self._unpaid - self._transport.get_write_buffer_size()
        if paid > 0:
            self._unpaid -= paid
            self._machine.handle_writable(self._leaf._now(), 0, paid)
            self.drain()

    # ---- Input ----

    def _offer(self) -> None:
        """Gives the machine what came, as far as it takes it, and does what it orders with the rest."""
        data, at = self._input, 0
        address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
        life, self._offering = self._life, True
        while self._leaf._error is None and self._life == life:
            if self._order is not None:
                order = self._order
                if len(data) - at < self._owed:
                    break
                self._order = None
                end = at + self._owed
                if order:
                    try:
                        self._take_records(order, data[at:end])
                    except (ReplcoreError, OSError) as error:
                        return self._leaf._fail(_told(error))
                at = end
                self.drain()
                continue
            taken = self._machine.handle_recv(self._leaf._now(), 0, address + at, len(data) - at)
            at += taken
            self.drain()
            if not taken and self._order is None:
                break
        self._offering = False
        if self._life == life:
            self._input = data[at:]

    def _take_records(self, order: Tuple[Any, ...], data: bytes) -> None:
        stream, source, epoch, position, offset, completed, compressed = order
        begun = self._parts.pop(source, b"") if offset else b""
        refused = 0
        records: List[bytes] = []
        if compressed or len(begun) != offset:
            refused = _abi.FAILURE_CORRUPT
        else:
            rest = begun + data
            records, rest, refused = _split(rest, completed, self._log.record_bytes_max)
        if refused:
            self._machine.handle_refused(self._leaf._now(), 0, stream, refused)
            return
        if rest:
            self._parts[source] = rest
        if completed:
            known = self._leaf._own_id
            records = [record for record in records if int.from_bytes(record[16:24], "little") != known]
            self._log.add_incoming(source, (epoch, position + completed), records)
        self._when_safe(stream, position + completed, len(rest), len(data))

    def _when_safe(self, stream: int, position: int, offset: int, count: int) -> None:
        """Reports to the machine once what came is on disk."""
        life = self._life

        def report() -> None:
            if self._life == life:
                self._machine.handle_taken(self._leaf._now(), 0, stream, position, offset, count)

        def done(error: Optional[ReplcoreError]) -> None:
            if self._life != life or self._leaf._error is not None:
                return
            if error is None:
                self._leaf._report_taken(report)
            else:
                self._parts.clear()
                self._machine.handle_refused(self._leaf._now(), 0, stream, _abi.FAILURE_FULL)

        self._log.batch.after.append(done)
        self._leaf._commit_wanted.set()

    # ---- Orders ----

    def drain(self) -> None:
        """Does what the machine orders until it is idle, and sets the timer."""
        leaf, source = self._leaf, self._machine
        if self._draining or leaf._error is not None:
            return
        self._draining = True
        try:
            while (output := source.poll()).kind != OutputKind.IDLE:
                _ORDERS[output.kind](self, output)
        except (ReplcoreError, OSError) as error:
            leaf._fail(_told(error))
        finally:
            self._draining = False
        if self._unpaid and self._transport is not None and not self._transport.get_write_buffer_size():
            leaf._loop.call_soon(self._pay)
        if self._order is not None and not self._offering:
            leaf._loop.call_soon(self._offer)
        if leaf._wake is not None:
            leaf._wake.cancel()
            leaf._wake = None
        if output.next != _abi.NEVER and leaf._error is None:
            leaf._wake = leaf._loop.call_at(output.next / 1_000_000 + 0.0005, self._timeout)

    def _timeout(self) -> None:
        if self._leaf._error is None:
            self._machine.handle_timeout(self._leaf._now())
            self.drain()

    def grown(self) -> None:
        """Tells the machine of own queues that have grown."""
        for message_class, stream in self._watched.items():
            position = self._log.outgoing[message_class].next
            self._machine.handle_appended(self._leaf._now(), 0, stream, position)

    def _send(self, output: Any) -> None:
        self._write(self._machine.payload(output))

    def _send_records(self, output: Any) -> None:
        log, message_class = self._log, output.message_class
        first = log.outgoing[message_class].first
        if output.position < first:
            self._machine.handle_gone(self._leaf._now(), 0, output.stream, first, _abi.SKIP_FORGOTTEN)
            return
        pieces, completed, tail = log.collect(message_class, output.position, output.offset, output.bytes_max)
        count = sum(map(len, pieces))
        head = replcore_records(output.position, output.offset, completed, tail, 0, output.round, output.stream)
        out = ctypes.create_string_buffer(_abi.RECORDS_HEAD_BYTES)
        check("records", library.replcore_records_head(ctypes.byref(head), count, out, len(out)))
        stream, position = output.stream, output.position + completed
        offset = output.offset + tail if tail else 0
        self._write(b"".join([out.raw, *pieces]))
        self._machine.handle_sent(
            self._leaf._now(), 0, stream, position, offset, count, len(out) + count
        )

    def _take(self, output: Any) -> None:
        self._owed = output.len
        self._order = ()
        if output.kind == OutputKind.TAKE_RECORDS:
            source = (output.node, output.queue, output.message_class)
            self._order = (output.stream, source, output.epoch, output.position, output.offset,
                           output.completed, output.raw_bytes)

    def _take_skip(self, output: Any) -> None:
        logger.warning(
            "leaf %s: %d messages will not come, reason %d", self._leaf.name, output.next - output.position,
            output.reason,
        )
        source = (output.node, output.queue, output.message_class)
        self._parts.pop(source, None)
        self._log.add_incoming(source, (output.epoch, output.next), [])
        self._when_safe(output.stream, output.next, 0, 0)

    def _release(self, output: Any) -> None:
        self._log.release(output.message_class, output.position)
        self._leaf._commit_lazily()
        self._leaf._tell_changed()

    def _place(self, output: Any) -> None:
        """The hub has begun a new life of its log, and says where this leaf is in it."""
        source = (output.node, output.queue, output.message_class)
        self._parts.pop(source, None)
        self._log.add_incoming(source, (output.epoch, output.position), [])
        self._when_safe(output.stream, output.position, 0, 0)

    def _ask_place(self, output: Any) -> None:
        position = self._log.place_reader(output.message_class, output.epoch, output.position)
        self._machine.handle_answer_place(self._leaf._now(), output.token, position)

    def _ask_inbound(self, output: Any) -> None:
        source = (output.node, output.queue, output.message_class)
        token, epoch, life = output.token, output.epoch, self._life

        def answer() -> None:
            if self._life == life and self._leaf._error is None:
                known, position = self._log.places.get(source, (epoch, 0))
                self._machine.handle_answer_inbound(self._leaf._now(), token, known, position)

        # What is under way to the disk belongs to the answer.
        self._leaf._asked.append(answer)
        self._leaf._commit_wanted.set()

    def _ask_outbound(self, output: Any) -> None:
        log, message_class = self._log, output.message_class
        self._watched[message_class] = output.stream
        self._machine.handle_answer_outbound(
            self._leaf._now(), output.token, log.state.epoch, log.state.released[message_class],
            log.outgoing[message_class].next, log.outgoing[message_class].next,
        )

    def _ask_subscribe(self, output: Any) -> None:
        self._machine.handle_answer_denied(self._leaf._now(), output.token)

    def _order_dial(self, output: Any) -> None:
        self._dial()

    def _hang_up(self, output: Any) -> None:
        transport = self._transport
        if transport is not None:
            transport.close()
            self._leaf._loop.call_later(CLOSE_SECONDS, transport.abort)

    def _resume(self, output: Any) -> None:
        self._leaf._loop.call_soon(self._offer)

    def _pass_over(self, output: Any) -> None:
        pass

    def _event(self, output: Any) -> None:
        name = self._leaf.name
        if output.event == LeafEvent.REFUSED:
            logger.warning("leaf %s: the hub refuses it: %s", name, _REFUSED.get(output.reason, output.reason))
        elif output.event == LeafEvent.REGISTERED:
            logger.info("leaf %s: registered at %s", name, self._machine.peer())
        self._leaf._tell_changed()

    def _halted(self, output: Any) -> None:
        reason = self._machine.payload(output).decode(errors="replace")
        self._leaf._fail(ReplcoreError(f"leaf {self._leaf.name!r}: a broken invariant, please report it: {reason}"))


NOISE = "noise:"

_ORDERS = {
    OutputKind.SEND: _Link._send,
    OutputKind.SEND_RECORDS: _Link._send_records,
    OutputKind.TAKE_RECORDS: _Link._take,
    OutputKind.TAKE_SKIP: _Link._take_skip,
    OutputKind.SKIP_BYTES: _Link._take,
    OutputKind.TAKE_CALL: _Link._take,
    OutputKind.RELEASE: _Link._release,
    OutputKind.PLACE: _Link._place,
    OutputKind.ASK_PLACE: _Link._ask_place,
    OutputKind.ASK_INBOUND: _Link._ask_inbound,
    OutputKind.ASK_OUTBOUND: _Link._ask_outbound,
    OutputKind.ASK_SUBSCRIBE: _Link._ask_subscribe,
    OutputKind.DIAL: _Link._order_dial,
    OutputKind.HANGUP: _Link._hang_up,
    OutputKind.RESUME: _Link._resume,
    OutputKind.EVENT: _Link._event,
    OutputKind.HALTED: _Link._halted,
    # A leaf keeps nothing by PERSIST, and reads no consumer.
    OutputKind.FORGET: _Link._pass_over,
    OutputKind.DEAD_LETTER: _Link._pass_over,
}

_REFUSED = {
    Refuse.VERSION: "no version in common; update the older of the two",
    Refuse.NAME: "its name is not a name",
    Refuse.IDENTITY: "its certificate or key is not for its name",
    Refuse.NAME_IN_USE: "a live leaf has this name; give each leaf its own",
    Refuse.COLLISION: "two names with one identity; rename one",
    Refuse.FULL: "its table of leaves is full; raise the hub's limit",
    Refuse.BUSY: "too many leaves register at once; it tries again by itself",
    Refuse.ROLE: "the broker is not a hub; give the address of one",
}


def _told(error: Exception) -> ReplcoreError:
    if isinstance(error, ReplcoreError):
        return error
    return LogError(f"{error}; see to the disk, then start the leaf again")


def _split(data: bytes, completed: int, record_bytes_max: int) -> Tuple[List[bytes], bytes, int]:
    """Whole records, checked, then the begun one; or why not."""
    records, at = [], 0
    kind, length = ctypes.c_uint32(), ctypes.c_size_t()
    references = ctypes.byref(kind), ctypes.byref(length)
    base = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    record = _abi.replcore_record()
    for _ in range(completed):
        status = library.replcore_entry_read(base + at, len(data) - at, record_bytes_max, *references)
        if status:
            return [], b"", _abi.FAILURE_FULL if status == _abi.Status.LENGTH else _abi.FAILURE_CORRUPT
        one = data[at : at + length.value]
        if check_record(one, record):
            return [], b"", _abi.FAILURE_CORRUPT
        records.append(one)
        at += length.value
    rest = data[at:]
    if len(rest) > record_bytes_max:
        return [], b"", _abi.FAILURE_FULL
    return records, rest, 0


def _parse_broker(broker: str) -> Tuple[str, Optional[int]]:
    if broker.startswith("unix:"):
        return broker[len("unix:"):], None
    host, _, port = broker.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"broker {broker!r}: give host:port, such as localhost:8080, unix:/path, or noise:host:port")
    return host.strip("[]"), int(port)
