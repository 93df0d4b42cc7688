"""The files in which a leaf keeps its messages.

A folder of segments, each a run of batches as ``docs/wire.md`` describes them: written with one call,
synced, and counting as a whole or not at all. Records of the leaf itself are its outgoing queue, one for
each class, at the position that their number says, counted from where their life began; all others were
received. Each start begins a life, so that no number is ever given twice. Among them stand notes:

====  ==========================================================================================
kind  payload, little endian
====  ==========================================================================================
2     how the leaf stands: own id u64, instance u64, epoch u32, 0 u32, positions released of the four
      classes u64 each, received messages acknowledged u64, greatest stamp u64
3     how far an incoming stream was taken: owner u64, queue u64, position u64, epoch u32, class u32
4     the received records that follow are numbered from here: u64
5     an idempotency key: BLAKE2b-128 of it, epoch u32, class u32, number u64
6     a life of the log: epoch u32, 0 u32, the positions at which it began, of the four classes u64 each
====  ==========================================================================================

Each segment begins with all notes in force, so that a segment without a message that is still wanted can
be deleted. What still is wanted of the oldest is copied forward when there are too many.
"""

from __future__ import annotations

import array
import collections
import ctypes
import errno
import fcntl
import hashlib
import os
import pathlib
import struct
from typing import Any, Dict, Iterator, List, Tuple

from . import _abi
from ._abi import Status, replcore_batch, replcore_life, replcore_record
from ._library import check, library
from .errors import LogError
from .machine import first_epoch, next_epoch
from .record import CLASSES, check_record

STATE, PLACE, NUMBER, KEY, LIFE = 2, 3, 4, 5, 6
STATE_FORM = struct.Struct("<QQII4QQQ")
PLACE_FORM = struct.Struct("<QQQII")
NUMBER_FORM = struct.Struct("<Q")
KEY_FORM = struct.Struct("<16sIIQ")
LIFE_FORM = struct.Struct("<II4Q")
HEADER = _abi.BATCH_HEADER_BYTES
ENTRY_HEADER = 12
BATCH_BYTES = 4 << 20
BATCH_RECORDS = 60_000
PLACES = 64
"""Incoming streams that are remembered: the hub has one for each class and queue that is read."""

Place = Tuple[int, int]


class Backlog:
    """Where records stand that are wanted in the order of their positions: segment << 32 | offset."""

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.bytes = 0
        self._at = array.array("Q")
        self._length = array.array("I")
        self._head = 0

    def __len__(self) -> int:
        return len(self._at) - self._head

    @property
    def next(self) -> int:
        return self.first + len(self)

    def append(self, at: int, length: int) -> None:
        self._at.append(at)
        self._length.append(length)
        self.bytes += length

    def place(self, position: int) -> Tuple[int, int]:
        index = self._head + position - self.first
        return self._at[index], self._length[index]

    def move(self, position: int, at: int) -> None:
        self._at[self._head + position - self.first] = at

    def drop(self, before: int) -> Iterator[int]:
        """Forgets all before the position; gives their segments."""
        while self.first < before and self._head < len(self._at):
            yield self._at[self._head] >> 32
            self.bytes -= self._length[self._head]
            self._head += 1
            self.first += 1
        if self._head > 4096 and self._head * 2 > len(self._at):
            del self._at[: self._head], self._length[: self._head]
            self._head = 0

    def within(self, segment: int) -> Iterator[Tuple[int, int, int]]:
        """Position, place and length of what stands in the segment."""
        for index in range(self._head, len(self._at)):
            if self._at[index] >> 32 == segment:
                yield self.first + index - self._head, self._at[index], self._length[index]


class Batch:
    """What the next commit writes, and what depends on it."""

    def __init__(self) -> None:
        self.data = bytearray(HEADER)
        self.records = 0
        self.outgoing: List[Tuple[int, int, int]] = []  # class, offset, bytes
        self.incoming: List[Tuple[int, int]] = []  # offset, bytes
        self.moved: List[Tuple[Backlog, int, int]] = []  # whose, position, offset
        self.places: List[Tuple[Tuple[int, int, int], Place]] = []
        self.keys: List[bytes] = []
        self.after: List[Any] = []
        """Called with None once all is safe, or with the error."""

    def is_full(self) -> bool:
        return len(self.data) > BATCH_BYTES or self.records > BATCH_RECORDS

    def is_empty(self) -> bool:
        return len(self.data) == HEADER


class Write:
    """A batch on its way to the disk."""

    def __init__(self, batch: Batch, segment: int, offset: int, prefix: bytes, state: "State") -> None:
        self.batch = batch
        self.segment = segment
        self.offset = offset
        self.prefix = prefix
        self.state = state
        self.end = offset + len(prefix) + len(batch.data)


class State:
    """How the leaf stands, as a note says it."""

    def __init__(self) -> None:
        self.owner = self.instance = self.epoch = self.acknowledged = self.stamp = 0
        self.released = [0] * CLASSES

    def note(self) -> bytes:
        return STATE_FORM.pack(
            self.owner, self.instance, self.epoch, 0, *self.released, self.acknowledged, self.stamp
        )

    @classmethod
    def of(cls, payload: bytes) -> "State":
        state = cls()
        (state.owner, state.instance, state.epoch, _, *state.released, state.acknowledged,
         state.stamp) = STATE_FORM.unpack(payload)
        return state


class Log:
    """See the module. One thread uses it, but :meth:`write` may run in another."""

    def __init__(
        self, folder: pathlib.Path, owner: int, *, segment_bytes: int, segments_max: int, keys_max: int,
        record_bytes_max: int,
    ) -> None:
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.segments_max = segments_max
        self.keys_max = keys_max
        self.record_bytes_max = record_bytes_max
        self.torn_bytes = 0
        """Cut off at the end of the log when it was opened: what a crash had left half written."""
        self.state = State()
        self.state.owner = owner
        self.outgoing = [Backlog() for _ in range(CLASSES)]
        self.inbox = Backlog()
        self.places: "collections.OrderedDict[Tuple[int, int, int], Place]" = collections.OrderedDict()
        self.keys: "collections.OrderedDict[bytes, Tuple[int, int, int]]" = collections.OrderedDict()
        self.seq_next = [1] * CLASSES
        self.lives: "Dict[int, Tuple[int, ...]]" = {}
        """Where each life that something is wanted of began, by its epoch, oldest first; and the present."""
        self.received_next = 0
        self.batch = Batch()
        self._dirty = False
        self._ordinal = 0
        self._files: Dict[int, int] = {}
        self._wanted: Dict[int, int] = collections.Counter()
        self._segment = self._offset = 0
        self._checkpointed = True
        self._lock = self._open_folder()
        try:
            self._recover()
        except BaseException:
            self.close()
            raise

    # ---- Opening ----

    def _open_folder(self) -> int:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LogError(f"{self.folder}: {error.strerror}; give a folder that can be written to") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise LogError(f"{self.folder}: in use by another leaf; each needs a folder of its own") from None
        return lock

    def _recover(self) -> None:
        owner = self.state.owner
        numbers = sorted(int(path.stem) for path in self.folder.glob("*.log"))
        sent: Dict[Tuple[int, int, int], Tuple[int, int]] = {}
        received: Dict[int, Tuple[int, int]] = {}
        for number in numbers:
            self._read_segment(number, number == numbers[-1], sent, received)
        if self.state.owner != owner:
            raise LogError(f"{self.folder}: is the folder of another leaf; give one of its own")
        if self.state.epoch == 0:
            self._begin()
            return
        self._segment = numbers[-1]
        self._offset = os.fstat(self._files[self._segment]).st_size
        self._checkpointed = self._offset > 0
        self._index(sent, received)
        self._delete_unwanted()
        self._begin_life(next_epoch(self.state.epoch))

    def _begin(self) -> None:
        self.state.instance = int.from_bytes(os.urandom(8), "little") | 1
        self._segment = max(self._files, default=0) + 1
        self._offset, self._checkpointed = 0, False
        self._begin_life(first_epoch())

    def _begin_life(self, epoch: int) -> None:
        """What is posted from here on is numbered anew, in another epoch. Durable when this returns."""
        self.state.epoch, self._dirty = epoch, True
        begins = [list(one) for one in self.lives.values()][1:] + [[backlog.next for backlog in self.outgoing]]
        for past, ends in zip(list(self.lives), begins):
            if all(end <= released for end, released in zip(ends, self.state.released)):
                del self.lives[past]
        self.lives[epoch] = tuple(backlog.next for backlog in self.outgoing)
        self.seq_next = [1] * CLASSES
        note(self.batch.data, LIFE, LIFE_FORM.pack(epoch, 0, *self.lives[epoch]))
        write = self.seal()
        self.write(write)
        self.apply(write)

    def _read_segment(self, number: int, is_last: bool, sent: Dict[Any, Any], received: Dict[Any, Any]) -> None:
        path = self._path(number)
        self._files[number] = os.open(path, os.O_RDWR)
        data = path.read_bytes()
        base, at, batch = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0, 0, replcore_batch()
        while True:
            status = library.replcore_batch_read(base + at, len(data) - at, number, ctypes.byref(batch))
            if status:
                break
            at += HEADER
            self._read_entries(data, at, at + batch.entries_len, number, sent, received)
            self._ordinal = batch.first_ordinal + batch.records
            at += batch.entries_len
        if status == Status.FORMAT or (at < len(data) and not is_last):
            text = library.replcore_status_text(status).decode()
            raise LogError(f"{path}: byte {at}: {text}; restore the folder from a copy, or move it away: the "
                           "messages in it that were not handed on are lost then")
        if at < len(data):
            self.torn_bytes = len(data) - at
            os.ftruncate(self._files[number], at)

    def _read_entries(
        self, data: bytes, at: int, end: int, segment: int, sent: Dict[Any, Any], received: Dict[Any, Any]
    ) -> None:
        kind, length, record, number = ctypes.c_uint32(), ctypes.c_size_t(), replcore_record(), 0
        kind_ref, length_ref = ctypes.byref(kind), ctypes.byref(length)
        base = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
        while at < end:
            check("log entry", library.replcore_entry_read(base + at, end - at, 2**32 - 1, kind_ref, length_ref))
            size = length.value
            payload = data[at + ENTRY_HEADER : at + size] if kind.value != _abi.ENTRY_RECORD else b""
            if kind.value == STATE:
                self.state = State.of(payload)
            elif kind.value == PLACE:
                owner, queue, position, epoch, message_class = PLACE_FORM.unpack(payload)
                self.set_place((owner, queue, message_class), (epoch, position))
            elif kind.value == NUMBER:
                (number,) = NUMBER_FORM.unpack(payload)
            elif kind.value == LIFE:
                epoch, _, *begins = LIFE_FORM.unpack(payload)
                self.lives[epoch] = tuple(begins)
            elif kind.value == KEY:
                digest, epoch, message_class, seq = KEY_FORM.unpack(payload)
                self._remember(digest, (epoch, message_class, seq))
            elif kind.value == _abi.ENTRY_RECORD:
                entry = data[at : at + size]
                check("record in the log", check_record(entry, record))
                place = (segment << 32 | at, size)
                if record.id.origin == self.state.owner:
                    sent[record.id.epoch, record.id.message_class, record.id.seq] = place
                    if record.idempotency_key_len:
                        key = entry[record.idempotency_key_at :][: record.idempotency_key_len]
                        self._remember(digest_of(key), (record.id.epoch, record.id.message_class, record.id.seq))
                else:
                    received[number] = place
                    number += 1
                self.state.stamp = max(self.state.stamp, record.stamp)
            at += size

    def _index(self, sent: Dict[Tuple[int, int, int], Tuple[int, int]], received: Dict[int, Tuple[int, int]]) -> None:
        for message_class, released in enumerate(self.state.released):
            placed = {self.lives[epoch][message_class] + seq - 1: place
                      for (epoch, its_class, seq), place in sent.items()
                      if its_class == message_class and epoch in self.lives}
            backlog = self.outgoing[message_class] = Backlog(released)
            for position in sorted(position for position in placed if position >= released):
                self._place(backlog, position, placed[position])
        self.inbox = Backlog(self.state.acknowledged)
        for number in sorted(number for number in received if number >= self.state.acknowledged):
            self._place(self.inbox, number, received[number])
        self.received_next = self.inbox.next

    def _place(self, backlog: Backlog, position: int, place: Tuple[int, int]) -> None:
        if position != backlog.next:
            raise LogError(f"{self.folder}: message {backlog.next} is missing; a file was removed or restored "
                           "alone. Restore the whole folder, or move it away")
        backlog.append(*place)
        self._wanted[place[0] >> 32] += 1

    # ---- Adding to the next batch ----

    def add_outgoing(self, record: memoryview, message_class: int, key: bytes) -> int:
        """Adds a record that was encoded with the number `seq_next` of its class; returns that."""
        batch, seq = self.batch, self.seq_next[message_class]
        batch.outgoing.append((message_class, len(batch.data), len(record)))
        batch.data += record
        batch.records += 1
        self.seq_next[message_class] += 1
        if key:
            digest = digest_of(key)
            batch.keys.append(digest)
            self._remember(digest, (self.state.epoch, message_class, seq))
        return seq

    def add_incoming(self, place: Tuple[int, int, int], stands: Place, records: List[bytes]) -> None:
        """Adds received records with how far their stream is then taken."""
        batch = self.batch
        batch.places.append((place, stands))
        owner, queue, message_class = place
        note(batch.data, PLACE, PLACE_FORM.pack(owner, queue, stands[1], stands[0], message_class))
        if records:
            note(batch.data, NUMBER, NUMBER_FORM.pack(self.received_next))
        for record in records:
            batch.incoming.append((len(batch.data), len(record)))
            batch.data += record
        batch.records += len(records)
        self.received_next += len(records)

    def release(self, message_class: int, position: int) -> None:
        """Everything before that position was handed on."""
        self.state.released[message_class] = max(self.state.released[message_class], position)
        self._dirty = True

    def acknowledge(self, count: int) -> None:
        """The program is done with the first `count` of all received messages."""
        if count > self.state.acknowledged:
            self.state.acknowledged = count
            self._dirty = True

    @property
    def is_dirty(self) -> bool:
        return self._dirty

    def set_place(self, place: Tuple[int, int, int], stands: Place) -> None:
        self.places[place] = stands
        self.places.move_to_end(place)
        if len(self.places) > PLACES:
            self.places.popitem(last=False)

    def _remember(self, digest: bytes, identity: Tuple[int, int, int]) -> None:
        self.keys[digest] = identity
        if len(self.keys) > self.keys_max:
            self.keys.popitem(last=False)

    # ---- Writing ----

    def seal(self) -> Write:
        """Takes the batch and says where it goes. One at a time: then :meth:`apply` or :meth:`fail`."""
        batch, self.batch = self.batch, Batch()
        if self._offset > self.segment_bytes:
            self._segment, self._offset, self._checkpointed = self._segment + 1, 0, False
        prefix = b"" if self._checkpointed else self._checkpoint()
        self._copy_forward(batch)
        state = State.of(self.state.note())
        if self._dirty:
            note(batch.data, STATE, state.note())
        self._finish(batch.data, batch.records, self._segment)
        self._dirty = False
        return Write(batch, self._segment, self._offset, prefix, state)

    def _finish(self, data: bytearray, records: int, segment: int) -> None:
        head = replcore_batch(segment, self._ordinal, len(data) - HEADER, records)
        buffer = (ctypes.c_char * len(data)).from_buffer(data)
        check("batch", library.replcore_batch_encode(ctypes.byref(head), buffer, len(data)))
        self._ordinal += records

    def _checkpoint(self) -> bytes:
        data = bytearray(HEADER)
        note(data, STATE, self.state.note())
        for (owner, queue, message_class), (epoch, position) in self.places.items():
            note(data, PLACE, PLACE_FORM.pack(owner, queue, position, epoch, message_class))
        for digest, identity in self.keys.items():
            note(data, KEY, KEY_FORM.pack(digest, *identity))
        for epoch, begins in self.lives.items():
            note(data, LIFE, LIFE_FORM.pack(epoch, 0, *begins))
        self._finish(data, 0, self._segment)
        return bytes(data)

    def _copy_forward(self, batch: Batch) -> None:
        """Takes what is wanted of the oldest segment into the batch when there are too many."""
        if len(self._files) <= self.segments_max:
            return
        oldest = min(self._files)
        for backlog in self.outgoing:
            for position, at, length in list(backlog.within(oldest)):
                batch.moved.append((backlog, position, len(batch.data)))
                batch.data += self.read(at, length)
                batch.records += 1
                if batch.is_full():
                    return
        for number, at, length in list(self.inbox.within(oldest)):
            note(batch.data, NUMBER, NUMBER_FORM.pack(number))
            batch.moved.append((self.inbox, number, len(batch.data)))
            batch.data += self.read(at, length)
            batch.records += 1
            if batch.is_full():
                return

    def write(self, write: Write) -> None:
        """Writes and syncs; for another thread."""
        data, offset = write.prefix + bytes(write.batch.data), write.offset
        is_new = write.segment not in self._files
        if is_new:
            self._files[write.segment] = os.open(self._path(write.segment), os.O_RDWR | os.O_CREAT, 0o600)
        file = self._files[write.segment]
        while data:
            done = os.pwrite(file, data, offset)
            data, offset = data[done:], offset + done
        getattr(os, "fdatasync", os.fsync)(file)
        if is_new:
            self._sync_folder()

    def apply(self, write: Write) -> None:
        """The batch is safe."""
        base = write.segment << 32 | write.offset + len(write.prefix)
        for message_class, offset, length in write.batch.outgoing:
            self.outgoing[message_class].append(base + offset, length)
        for offset, length in write.batch.incoming:
            self.inbox.append(base + offset, length)
        for backlog, position, offset in write.batch.moved:
            if position >= backlog.first:
                self._wanted[backlog.place(position)[0] >> 32] -= 1
                backlog.move(position, base + offset)
                self._wanted[write.segment] += 1
        self._wanted[write.segment] += len(write.batch.outgoing) + len(write.batch.incoming)
        self._offset, self._checkpointed = write.end, True
        for place, stands in write.batch.places:
            self.set_place(place, stands)
        for backlog, before in zip(self.outgoing, write.state.released):
            self._drop(backlog, before)
        self._drop(self.inbox, write.state.acknowledged)
        self._delete_unwanted()

    def fail(self, write: Write) -> Batch:
        """The batch could not be written. Takes it back, and the one after it; returns that."""
        later, self.batch = self.batch, Batch()
        for batch in (write.batch, later):
            for digest in batch.keys:
                self.keys.pop(digest, None)
        for message_class, backlog in enumerate(self.outgoing):
            self.seq_next[message_class] = backlog.next - self.lives[self.state.epoch][message_class] + 1
        self.received_next = self.inbox.next
        self._ordinal -= write.batch.records
        self._dirty = True
        if write.segment in self._files:
            os.ftruncate(self._files[write.segment], write.offset)
        return later

    def _drop(self, backlog: Backlog, before: int) -> None:
        for segment in backlog.drop(before):
            self._wanted[segment] -= 1

    def _delete_unwanted(self) -> None:
        for segment in [one for one in self._files if one != self._segment and not self._wanted[one]]:
            os.close(self._files.pop(segment))
            self._path(segment).unlink()
            del self._wanted[segment]

    # ---- Earlier lives ----

    def place_reader(self, message_class: int, epoch: int, position: int) -> int:
        """Where the hub goes on that was so far in that life of this log, or in a copy of it that is gone."""
        backlog, begins = self.outgoing[message_class], list(self.lives.values())
        ends = [one[message_class] for one in begins[1:]] + [backlog.next]
        lives = (replcore_life * len(ends))(*(replcore_life(end, its, 0) for its, end in zip(self.lives, ends)))
        place = ctypes.c_uint64()
        check("place", library.replcore_place_after(
            lives, len(lives), epoch, position, self.state.released[message_class], ctypes.byref(place)
        ))
        return place.value

    # ---- Reading ----

    def read(self, at: int, length: int) -> bytes:
        """The record that stands there."""
        data = os.pread(self._files[at >> 32], length, at & 0xFFFFFFFF)
        if len(data) != length:
            raise LogError(f"{self._path(at >> 32)}: was cut while in use; restore the folder from a copy")
        return data

    def collect(self, message_class: int, position: int, offset: int, bytes_max: int) -> Tuple[List[bytes], int, int]:
        """Bytes of records from there on, how many whole ones, and bytes of one more."""
        backlog, pieces, room, completed = self.outgoing[message_class], [], bytes_max, 0
        run_at = run_length = 0
        while position < backlog.next:
            at, length = backlog.place(position)
            at, length = at + offset, length - offset
            if length > room:
                break
            if run_length and run_at + run_length == at:
                run_length += length
            else:
                if run_length:
                    pieces.append(self.read(run_at, run_length))
                run_at, run_length = at, length
            room, completed, position, offset = room - length, completed + 1, position + 1, 0
        if run_length:
            pieces.append(self.read(run_at, run_length))
        if completed or position >= backlog.next:
            return pieces, completed, 0
        at, length = backlog.place(position)
        return [self.read(at + offset, min(length - offset, bytes_max))], 0, min(length - offset, bytes_max)

    @property
    def queued(self) -> Tuple[int, int]:
        """Messages and bytes that are not handed on."""
        messages = bytes_held = 0
        for backlog, released in zip(self.outgoing, self.state.released):
            messages += backlog.next - max(backlog.first, released)
            bytes_held += backlog.bytes
        return messages, bytes_held

    def _path(self, segment: int) -> pathlib.Path:
        return self.folder / f"{segment:016}.log"

    def _sync_folder(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()
        os.close(self._lock)


def note(data: bytearray, kind: int, payload: bytes) -> None:
    """Adds a note to a batch."""
    out = ctypes.create_string_buffer(ENTRY_HEADER + len(payload))
    written = ctypes.c_size_t()
    status = library.replcore_entry_encode(kind, payload, len(payload), out, len(out), ctypes.byref(written))
    check("note", status)
    data += out.raw


def digest_of(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=16).digest()


def is_full_disk(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
