"""The C interface as ctypes see it. Made of include/replcore.h by tools/make_abi.py; do not edit.

What the names mean is said in the header.
"""
# fmt: off
import ctypes
import enum
from typing import Any

ABI = 3
FROM_HERE = 0
FROM_LEAF = 1
FROM_UPSTREAM = 2
ROLE_LEAF = 0
ROLE_CLIENT = 1
ROLE_HUB = 2
BATCH_HEADER_BYTES = 32
RECORDS_HEAD_BYTES = 40
POLL_BYTES_MAX = 512
ENTRY_RECORD = 1
NEVER = 2**64 - 1
NOT_DIALED = 2**32 - 1
TRANSPORT_STREAM = 1
TRANSPORT_DATAGRAM = 2
FAILURE_FULL = 1
FAILURE_CORRUPT = 2
FAILURE_IO = 3
SKIP_EXPIRED = 1
SKIP_DROPPED = 2
SKIP_PURGED = 3
SKIP_LOST = 4
SKIP_FORGOTTEN = 5
NAME_BYTES = 64
KEY_REGISTRATION = 1
KEY_BALLOT = 2
KEY_MEMBERS = 3
KEY_TERM = 4
PROFILE_LAN = 0
PROFILE_WAN = 1
PROFILE_BATTERY = 2
MEMBERSHIP_VOTER = 0
MEMBERSHIP_LEARNER = 1
MEMBERSHIP_NONE = 2
METADATA_BYTES = 256
DIAL_UPSTREAM = 0
DIAL_LEAF = 1
NO_LINK = 2**32 - 1
NOISE_KEY_BYTES = 32
NOISE_HANDSHAKE_BYTES_MAX = 114
NOISE_HEAD_BYTES = 5
NOISE_OVERHEAD_BYTES = 21
NOISE_UNKNOWN_PACKET = 5
NOISE_BEGINS = 1
NOISE_ANSWERS = 2
NOISE_REFUSED = 0
NOISE_UP = 1
NOISE_FRAME = 2
NOISE_LOST = 3
NOISE_START = 4
NOISE_FIRST = 5
NOISE_UNKNOWN = 6
NOISE_MALFORMED = 1
NOISE_FORGED = 2
NOISE_REPLAYED = 3
NEXT_NOTHING = 0
NEXT_DELIVER = 1
NEXT_DEAD = 2


class Status(enum.IntEnum):
    # Done.
    OK = 0
    # A pointer is NULL that may not be.
    NULL = -1
    # Memory or a buffer is too small.
    SHORT = -2
    # The structure says a size that this library does not know, with a tail that is not zero.
    STRUCT_SIZE = -3
    # The pointer is not a machine, or not of the kind that the function is for.
    KIND = -4
    # A number is not one of those that have a meaning there.
    VALUE = -5
    # A name is empty, longer than 63 bytes, or has a byte other than A-Z a-z 0-9 . _ - : /
    NAME = -6
    # A text is longer than its limit or not UTF-8.
    TEXT = -7
    # The stored state is malformed, of a later version, or came after the first input.
    RESTORE = -8
    # More bytes are needed to tell.
    INCOMPLETE = -9
    # A length is out of range.
    LENGTH = -10
    # The checksum does not match.
    CHECKSUM = -11
    # The form is not what it has to be, or the entry is not a record.
    MALFORMED = -12
    # The log ends here: nothing was written behind.
    END = -13
    # The log ends here with a batch that was not written whole.
    TORN = -14
    # The log was written by a later version of this library.
    FORMAT = -15
    # There is no room for it now, or it does not fit the state the machine is in.
    REFUSED = -16
    # A table is full.
    FULL = -17
    # This node does not lead: ask the leader.
    NOT_LEADING = -18
    # The change before is not through yet: try again.
    BUSY = -19
    # Made with another key, or changed under way.
    FORGED = -20


class Role(enum.IntEnum):
    # Takes part in no election.
    NONE = 0
    # Follows, does not vote.
    LEARNER = 1
    # Follows, votes.
    FOLLOWER = 2
    # Asks whether it would be voted for.
    PRE_CANDIDATE = 3
    # Asks for votes.
    CANDIDATE = 4
    # Leads. Whether it may say so is what replcore_member_leader_until tells.
    LEADER = 5


class OutputKind(enum.IntEnum):
    # Nothing more now; call replcore_handle_timeout at `next` (microseconds, REPLCORE_NEVER).
    IDLE = 0
    # Write the first `len` bytes of the buffer, one frame, to `link`.
    SEND = 1
    # Write one frame of records to `link`: a head by replcore_records_head with `stream` and `round`, then whole records of the own queue `queue` and class `message_class` from `position` and `offset` on, or a part of one, at most `bytes_max` bytes of them. Answer replcore_handle_sent or replcore_handle_gone.
    SEND_RECORDS = 2
    # Take the next `len` bytes of `link`: records from `position` and `offset` on, of the stream of `node`, `queue`, `message_class` and `epoch`; `completed` whole ones and `tail_bytes` of one more; compressed when `raw_bytes` is not 0. Keep them, then answer replcore_handle_taken, or replcore_handle_refused.
    TAKE_RECORDS = 3
    # Entries `position` up to and without `next` of the stream of `node`, `queue`, `message_class` and `epoch` will not come, for `reason`. Answer replcore_handle_taken.
    TAKE_SKIP = 4
    # Throw away the next `len` bytes of `link`.
    SKIP_BYTES = 5
    # Take the next `len` bytes of `link`: a call (`reason` 0) or a reply (1) of number `token`.
    TAKE_CALL = 6
    # Entries of the own queue `queue` and class `message_class` before `position` are acknowledged and no longer needed.
    RELEASE = 7
    # Move the entry at `position` of `queue` and `message_class` to its dead letters.
    DEAD_LETTER = 8
    # The stream of `node`, `queue`, `message_class` and `epoch` goes on at `position`, whatever was noted of it before: its owner has begun a new life of its log. Make that durable and answer replcore_handle_taken, or replcore_handle_refused.
    PLACE = 9
    # How far was the stream of `node`, `queue`, `message_class` and `epoch` taken? Answer replcore_handle_answer_inbound with `token`.
    ASK_INBOUND = 10
    # What does the own queue `queue` and class `message_class`, whose name is the first `len` bytes of the buffer, hold? Answer replcore_handle_answer_outbound with `token`; from then on until the link is down tell its growth by replcore_handle_appended for `link` and `stream`.
    ASK_OUTBOUND = 11
    # May the client of `link` read `queue` as the consumer in the buffer, which replcore_subscribe_read reads? Answer replcore_handle_answer_subscribed or replcore_handle_answer_denied with `token`.
    ASK_SUBSCRIBE = 12
    # Open a link to the place numbered `dial`; then replcore_handle_link_up or replcore_handle_dial_failed.
    DIAL = 13
    # Close `link` once what was written is out; then replcore_handle_link_down.
    HANGUP = 14
    # Offer the bytes of `link` that were not taken again.
    RESUME = 15
    # Store the first `len` bytes of the buffer under (`key`, `node`) in place of what it held; then replcore_handle_persisted or replcore_handle_failed with `token`.
    PERSIST = 16
    # Remove what is stored under (`key`, `node`).
    FORGET = 17
    # Something happened; the meaning of `event` and the other fields is with the machine's kind.
    EVENT = 18
    # The buffer is too small; nothing is lost. Poll again with `len` bytes.
    NEED_BUFFER = 19
    # A broken invariant, described by the first `len` bytes of the buffer. The machine does nothing more.
    HALTED = 20
    # Where does a reader of the own queue `queue` and class `message_class` go on that was `position` far in the life `epoch` of this log, or in a copy of it that is gone? Ask replcore_place_after and answer replcore_handle_answer_place with `token`.
    ASK_PLACE = 21


class LeafEvent(enum.IntEnum):
    # The node at the other end is `node`.
    CONNECTED = 1
    # The hub has granted a lease of `next` milliseconds, for the first time on this link.
    REGISTERED = 2
    # The other end refuses, for `reason`, one of REPLCORE_REFUSE_*. The leaf tries again later.
    REFUSED = 3
    # The link has ended. The leaf dials again by itself.
    DISCONNECTED = 4
    # Something that this header does not know; may be passed over.
    OTHER = 5


class Refuse(enum.IntEnum):
    # No version in common.
    VERSION = 1
    # The name is not a name.
    NAME = 2
    # The certificate does not carry the name.
    IDENTITY = 3
    # A live node has this name and is another instance.
    NAME_IN_USE = 4
    # Two names with one identity.
    COLLISION = 5
    # The table of leaves, links or consumers is full.
    FULL = 6
    # Too many at once.
    BUSY = 7
    # The receiver does not take this role.
    ROLE = 8
    # The consumer may not be read, or is being read by another client.
    CONSUMER = 9
    # The other end is of another cluster.
    CLUSTER = 10
    # This node is no member of the other's cluster.
    STRANGER = 11
    # The other end, a hub, leads in a term that is over: the leaf refuses it. Dial another.
    TERM = 12
    # The other end, a hub, stands by for another. Dial that one.
    STANDBY = 13


class MemberEvent(enum.IntEnum):
    # This node leads, in the term `position`: the fencing token.
    BECAME_LEADER = 1
    # This node led in the term `position`, and does no more.
    LOST_LEADERSHIP = 2
    # `node` leads in the term `position`; 0 for nobody.
    LEADER_CHANGED = 3
    # Who is a member has changed.
    CONFIGURATION_CHANGED = 4
    # This node is no member any more.
    REMOVED = 5
    # The peer `node` is there.
    PEER_UP = 6
    # The peer `node` is not there any more.
    PEER_DOWN = 7
    # What the peer `node` says of itself has changed.
    PEER_CHANGED = 8
    # The peer `node` does not take this node, for `reason`, one of REPLCORE_REFUSE_*.
    REFUSED = 9
    # Something that this header does not know; may be passed over.
    OTHER = 10


class NodeEvent(enum.IntEnum):
    # The leaf `node` is registered, and on `link`.
    LEAF_UP = 1
    # The link of the registered leaf `node` has ended. Its lease runs on.
    LEAF_DOWN = 2
    # The leaf `node` has not renewed: it is not served until it registers again. Keep its queue.
    LEASE_EXPIRED = 3
    # A link or a registration of `node`, 0 when that is not known, was refused for `reason`, one of REPLCORE_REFUSE_*.
    PEER_REFUSED = 4
    # The hub at the place `dial` has granted a lease of `next` milliseconds, for the first time on this link.
    REGISTERED = 5
    # The hub at the place `dial` refuses this node, for `reason`. It tries again later.
    UPSTREAM_REFUSED = 6
    # The link to the place `dial` has ended.
    DIAL_DOWN = 7
    # Something that this header does not know; may be passed over.
    OTHER = 8


class PeerState(enum.IntEnum):
    # Not heard of, or given up.
    DOWN = 0
    # Was there, and has fallen silent. Still counts as there.
    SUSPECT = 1
    # There.
    UP = 2


class replcore_cobs_decoder(ctypes.Structure):
    _fields_ = [
        ("state", ctypes.c_uint64 * 8),
    ]


class replcore_dispatch_config(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("rules_max", ctypes.c_uint32),
        ("targets_max", ctypes.c_uint32),
        ("leaves_max", ctypes.c_uint32),
        ("upstreams_max", ctypes.c_uint32),
        ("without_leaves", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
    ]


class replcore_destination(ctypes.Structure):
    _fields_ = [
        ("queue", ctypes.c_uint64),
        ("name", ctypes.c_char * NAME_BYTES),
    ]


class replcore_life(ctypes.Structure):
    _fields_ = [
        ("end", ctypes.c_uint64),
        ("epoch", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    ]


class replcore_leaf_config(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("epoch", ctypes.c_uint32),
        ("instance", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("extra_queue", ctypes.c_char_p),
        ("address", ctypes.c_char_p),
        ("frame_bytes_max", ctypes.c_uint32),
        ("window_bytes", ctypes.c_uint32),
        ("keepalive_ms", ctypes.c_uint32),
        ("retransmit_ms", ctypes.c_uint32),
        ("retry_ms_min", ctypes.c_uint32),
        ("retry_ms_max", ctypes.c_uint32),
        ("register_ms", ctypes.c_uint32),
        ("lease_ms", ctypes.c_uint32),
        ("poll_interval_ms", ctypes.c_uint32),
        ("role", ctypes.c_uint32),
        ("queue", ctypes.c_char_p),
        ("consumer", ctypes.c_char_p),
        ("consumer_type", ctypes.c_char_p),
        ("consumer_from_start", ctypes.c_uint32),
        ("waits", ctypes.c_uint32),
    ]


class replcore_link_stats(ctypes.Structure):
    _fields_ = [
        ("bad_length", ctypes.c_uint64),
        ("bad_checksum", ctypes.c_uint64),
        ("bad_type", ctypes.c_uint64),
        ("bad_payload", ctypes.c_uint64),
        ("violations", ctypes.c_uint64),
        ("silent", ctypes.c_uint64),
        ("repeated", ctypes.c_uint64),
        ("went_back", ctypes.c_uint64),
        ("full", ctypes.c_uint64),
        ("below_level", ctypes.c_uint64),
    ]


class replcore_batch(ctypes.Structure):
    _fields_ = [
        ("segment", ctypes.c_uint64),
        ("first_ordinal", ctypes.c_uint64),
        ("entries_len", ctypes.c_uint32),
        ("records", ctypes.c_uint32),
    ]


class replcore_records(ctypes.Structure):
    _fields_ = [
        ("position", ctypes.c_uint64),
        ("offset", ctypes.c_uint32),
        ("completed", ctypes.c_uint32),
        ("tail_bytes", ctypes.c_uint32),
        ("raw_bytes", ctypes.c_uint32),
        ("round", ctypes.c_uint32),
        ("stream", ctypes.c_uint32),
    ]


class replcore_member_config(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("profile", ctypes.c_uint32),
        ("instance", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("cluster", ctypes.c_char_p),
        ("address", ctypes.c_char_p),
        ("peers_max", ctypes.c_uint32),
        ("links_max", ctypes.c_uint32),
        ("without_election", ctypes.c_uint32),
        ("membership", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
        ("admits_nobody", ctypes.c_uint32),
        ("heartbeat_ms", ctypes.c_uint32),
        ("timeout_ms_min", ctypes.c_uint32),
        ("timeout_ms_max", ctypes.c_uint32),
        ("clock_error_ppm", ctypes.c_uint32),
        ("retry_ms_min", ctypes.c_uint32),
        ("retry_ms_max", ctypes.c_uint32),
        ("handshake_ms", ctypes.c_uint32),
        ("suspect_ms", ctypes.c_uint32),
    ]


class replcore_leader(ctypes.Structure):
    _fields_ = [
        ("node", ctypes.c_uint64),
        ("term", ctypes.c_uint64),
        ("since_us", ctypes.c_uint64),
    ]


class replcore_peer(ctypes.Structure):
    _fields_ = [
        ("node", ctypes.c_uint64),
        ("name", ctypes.c_char * NAME_BYTES),
        ("address", ctypes.c_char * NAME_BYTES),
        ("metadata", ctypes.c_uint8 * METADATA_BYTES),
        ("metadata_len", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("membership", ctypes.c_uint32),
        ("state", ctypes.c_uint32),
        ("is_linked", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
        ("round_trip_us", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    ]


class replcore_member_counters(ctypes.Structure):
    _fields_ = [
        ("link", replcore_link_stats),
        ("frames_sent", ctypes.c_uint64),
        ("bytes_sent", ctypes.c_uint64),
        ("heartbeats_sent", ctypes.c_uint64),
        ("heartbeats_accepted", ctypes.c_uint64),
        ("heartbeats_refused", ctypes.c_uint64),
        ("pre_votes", ctypes.c_uint32),
        ("elections", ctypes.c_uint32),
        ("won", ctypes.c_uint32),
        ("lost", ctypes.c_uint32),
        ("votes_given", ctypes.c_uint32),
        ("votes_refused", ctypes.c_uint32),
        ("quorum_lost", ctypes.c_uint32),
        ("changes", ctypes.c_uint32),
        ("strangers", ctypes.c_uint32),
        ("implausible", ctypes.c_uint32),
        ("conflicts", ctypes.c_uint32),
        ("malformed", ctypes.c_uint32),
        ("store_failed", ctypes.c_uint32),
        ("wrong_cluster", ctypes.c_uint32),
        ("wrong_identity", ctypes.c_uint32),
        ("name_in_use", ctypes.c_uint32),
    ]


class replcore_dial(ctypes.Structure):
    _fields_ = [
        ("queue", ctypes.c_char_p),
        ("kind", ctypes.c_uint32),
        ("waits", ctypes.c_uint32),
    ]


class replcore_node_config(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("epoch", ctypes.c_uint32),
        ("instance", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("extra_queue", ctypes.c_char_p),
        ("address", ctypes.c_char_p),
        ("dials", ctypes.c_void_p),
        ("dial_count", ctypes.c_uint32),
        ("links_max", ctypes.c_uint32),
        ("leaves_max", ctypes.c_uint32),
        ("without_leaves", ctypes.c_uint32),
        ("frame_bytes_max", ctypes.c_uint32),
        ("window_bytes", ctypes.c_uint32),
        ("keepalive_ms", ctypes.c_uint32),
        ("retransmit_ms", ctypes.c_uint32),
        ("handshake_ms", ctypes.c_uint32),
        ("full_retry_ms", ctypes.c_uint32),
        ("lease_ms_max", ctypes.c_uint32),
        ("lease_ms_min", ctypes.c_uint32),
        ("admit_per_second", ctypes.c_uint32),
        ("admit_burst", ctypes.c_uint32),
        ("admit_spread_ms", ctypes.c_uint32),
        ("retry_ms_min", ctypes.c_uint32),
        ("retry_ms_max", ctypes.c_uint32),
        ("poll_interval_ms", ctypes.c_uint32),
        ("register_ms", ctypes.c_uint32),
        ("register_lease_ms", ctypes.c_uint32),
    ]


class replcore_lease(ctypes.Structure):
    _fields_ = [
        ("node", ctypes.c_uint64),
        ("instance", ctypes.c_uint64),
        ("until_us", ctypes.c_uint64),
        ("lease_ms", ctypes.c_uint32),
        ("link", ctypes.c_uint32),
        ("is_held", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("name", ctypes.c_char * NAME_BYTES),
        ("address", ctypes.c_char * NAME_BYTES),
        ("queue", ctypes.c_char * NAME_BYTES),
    ]


class replcore_link_peer(ctypes.Structure):
    _fields_ = [
        ("node", ctypes.c_uint64),
        ("role", ctypes.c_uint32),
        ("round_trip_us", ctypes.c_uint32),
        ("name", ctypes.c_char * NAME_BYTES),
    ]


class replcore_dial_state(ctypes.Structure):
    _fields_ = [
        ("link", ctypes.c_uint32),
        ("is_registered", ctypes.c_uint32),
    ]


class replcore_node_counters(ctypes.Structure):
    _fields_ = [
        ("link", replcore_link_stats),
        ("registered", ctypes.c_uint64),
        ("renewed", ctypes.c_uint64),
        ("expired", ctypes.c_uint64),
        ("refused", ctypes.c_uint64),
    ]


class replcore_subscribe(ctypes.Structure):
    _fields_ = [
        ("consumer", ctypes.c_char * NAME_BYTES),
        ("message_type", ctypes.c_char * NAME_BYTES),
        ("from_start", ctypes.c_uint32),
    ]


class replcore_noise_identity(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
        ("shared_key", ctypes.c_char_p),
        ("own_key", ctypes.c_char_p),
        ("hub_key", ctypes.c_char_p),
    ]


class replcore_noise_taken(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_uint32),
        ("reason", ctypes.c_uint32),
        ("at", ctypes.c_size_t),
        ("len", ctypes.c_size_t),
    ]


class replcore_output(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_uint32),
        ("len", ctypes.c_uint32),
        ("link", ctypes.c_uint32),
        ("stream", ctypes.c_uint32),
        ("token", ctypes.c_uint64),
        ("node", ctypes.c_uint64),
        ("queue", ctypes.c_uint64),
        ("position", ctypes.c_uint64),
        ("next", ctypes.c_uint64),
        ("offset", ctypes.c_uint32),
        ("message_class", ctypes.c_uint32),
        ("epoch", ctypes.c_uint32),
        ("bytes_max", ctypes.c_uint32),
        ("completed", ctypes.c_uint32),
        ("tail_bytes", ctypes.c_uint32),
        ("raw_bytes", ctypes.c_uint32),
        ("round", ctypes.c_uint32),
        ("reason", ctypes.c_uint32),
        ("event", ctypes.c_uint32),
        ("dial", ctypes.c_uint32),
        ("key", ctypes.c_uint32),
    ]


class replcore_header(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("value", ctypes.c_char_p),
        ("value_len", ctypes.c_size_t),
    ]


class replcore_message(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("message_type", ctypes.c_char_p),
        ("content_type", ctypes.c_char_p),
        ("to", ctypes.c_void_p),
        ("origin_name", ctypes.c_char_p),
        ("key", ctypes.c_char_p),
        ("key_len", ctypes.c_size_t),
        ("idempotency_key", ctypes.c_char_p),
        ("idempotency_key_len", ctypes.c_size_t),
        ("body", ctypes.c_char_p),
        ("body_len", ctypes.c_size_t),
        ("expires_wall_ms", ctypes.c_uint64),
        ("stamp", ctypes.c_uint64),
        ("headers", ctypes.c_void_p),
        ("header_count", ctypes.c_uint32),
        ("to_count", ctypes.c_uint32),
    ]


class replcore_record_id(ctypes.Structure):
    _fields_ = [
        ("origin", ctypes.c_uint64),
        ("seq", ctypes.c_uint64),
        ("epoch", ctypes.c_uint32),
        ("message_class", ctypes.c_uint32),
    ]


class replcore_part(ctypes.Structure):
    _fields_ = [
        ("name_at", ctypes.c_uint32),
        ("name_len", ctypes.c_uint32),
        ("value_at", ctypes.c_uint32),
        ("value_len", ctypes.c_uint32),
    ]


class replcore_record(ctypes.Structure):
    _fields_ = [
        ("id", replcore_record_id),
        ("time_wall_ms", ctypes.c_uint64),
        ("expires_wall_ms", ctypes.c_uint64),
        ("type_at", ctypes.c_uint32),
        ("type_len", ctypes.c_uint32),
        ("key_at", ctypes.c_uint32),
        ("key_len", ctypes.c_uint32),
        ("content_type_at", ctypes.c_uint32),
        ("content_type_len", ctypes.c_uint32),
        ("origin_name_at", ctypes.c_uint32),
        ("origin_name_len", ctypes.c_uint32),
        ("idempotency_key_at", ctypes.c_uint32),
        ("idempotency_key_len", ctypes.c_uint32),
        ("body_at", ctypes.c_uint32),
        ("body_len", ctypes.c_uint32),
        ("to_count", ctypes.c_uint32),
        ("header_count", ctypes.c_uint32),
        ("stamp", ctypes.c_uint64),
    ]


class replcore_next(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_uint32),
        ("deliveries", ctypes.c_uint32),
        ("position", ctypes.c_uint64),
        ("wake_us", ctypes.c_uint64),
    ]


# Name, result and parameters of every function.
FUNCTIONS: list[tuple[str, Any, list[Any]]] = [
    ("replcore_abi", ctypes.c_uint32, []),
    ("replcore_version", ctypes.c_char_p, []),
    ("replcore_cobs_encoded_max", ctypes.c_size_t, [ctypes.c_size_t]),
    ("replcore_cobs_encode", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_cobs_bad", ctypes.c_uint64, [ctypes.c_void_p]),
    ("replcore_cobs_take", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_dispatch_memory", ctypes.c_size_t, [ctypes.c_void_p]),
    ("replcore_dispatch_init", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_dispatch_add_rule", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32]),
    ("replcore_dispatch_clear_rules", ctypes.c_int32, [ctypes.c_void_p]),
    ("replcore_dispatch_set_leaf", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32]),
    ("replcore_dispatch_add_upstream", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_dispatch_record", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_restore", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t]),
    ("replcore_handle_timeout", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64]),
    ("replcore_handle_link_up", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64]),
    ("replcore_handle_link_down", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32]),
    ("replcore_handle_dial_failed", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32]),
    ("replcore_handle_recv", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_handle_writable", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32]),
    ("replcore_handle_persisted", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]),
    ("replcore_handle_failed", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32]),
    ("replcore_handle_sent", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32]),
    ("replcore_handle_gone", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint32]),
    ("replcore_handle_taken", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32]),
    ("replcore_handle_refused", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32]),
    ("replcore_handle_appended", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64]),
    ("replcore_handle_answer_inbound", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint32]),
    ("replcore_handle_answer_outbound", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64]),
    ("replcore_handle_answer_place", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64]),
    ("replcore_handle_answer_subscribed", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]),
    ("replcore_handle_answer_denied", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]),
    ("replcore_epoch_first", ctypes.c_uint32, [ctypes.c_uint64]),
    ("replcore_epoch_next", ctypes.c_uint32, [ctypes.c_uint32, ctypes.c_uint64]),
    ("replcore_place_after", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p]),
    ("replcore_leaf_memory", ctypes.c_size_t, []),
    ("replcore_leaf_init", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_leaf_stop", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64]),
    ("replcore_leaf_reject", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64]),
    ("replcore_leaf_connected", ctypes.c_int32, [ctypes.c_void_p]),
    ("replcore_leaf_drained", ctypes.c_int32, [ctypes.c_void_p]),
    ("replcore_leaf_round_trip_us", ctypes.c_uint32, [ctypes.c_void_p]),
    ("replcore_leaf_peer", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]),
    ("replcore_leaf_stats", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_batch_encode", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]),
    ("replcore_batch_read", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64, ctypes.c_void_p]),
    ("replcore_entry_read", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_entry_encode", ctypes.c_int32, [ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_records_head", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t]),
    ("replcore_crc32c", ctypes.c_uint32, [ctypes.c_void_p, ctypes.c_size_t]),
    ("replcore_member_memory", ctypes.c_size_t, [ctypes.c_void_p]),
    ("replcore_member_init", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_member_add_peer", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32]),
    ("replcore_member_set_metadata", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t]),
    ("replcore_member_resign", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64]),
    ("replcore_member_stop", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64]),
    ("replcore_member_join", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32]),
    ("replcore_member_leave", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64]),
    ("replcore_member_change", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32]),
    ("replcore_member_set_progress", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64]),
    ("replcore_member_role", ctypes.c_int32, [ctypes.c_void_p]),
    ("replcore_member_term", ctypes.c_uint64, [ctypes.c_void_p]),
    ("replcore_member_leader_until", ctypes.c_uint64, [ctypes.c_void_p]),
    ("replcore_member_leader", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_member_peer", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p]),
    ("replcore_member_peer_at", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p]),
    ("replcore_member_dial_target", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_member_link_peer", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_member_settled", ctypes.c_int32, [ctypes.c_void_p]),
    ("replcore_member_stats", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_node_memory", ctypes.c_size_t, [ctypes.c_void_p]),
    ("replcore_node_init", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_node_stop", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64]),
    ("replcore_node_forget", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]),
    ("replcore_node_leases", ctypes.c_uint32, [ctypes.c_void_p]),
    ("replcore_node_lease", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p]),
    ("replcore_node_lease_next", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_node_peer", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p]),
    ("replcore_node_dial", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p]),
    ("replcore_node_stats", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_subscribe_read", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_noise_memory", ctypes.c_size_t, []),
    ("replcore_noise_init", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_void_p]),
    ("replcore_noise_public", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_noise_start", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_noise_take", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_noise_answer_shared", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_noise_answer_pinned", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_noise_answered", ctypes.c_int32, [ctypes.c_void_p]),
    ("replcore_noise_refuse", ctypes.c_int32, [ctypes.c_void_p]),
    ("replcore_noise_seal", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_noise_refused", ctypes.c_uint32, [ctypes.c_void_p]),
    ("replcore_noise_forget", ctypes.c_int32, [ctypes.c_void_p]),
    ("replcore_poll", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_name_id", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p]),
    ("replcore_stamp_next", ctypes.c_uint64, [ctypes.c_uint64, ctypes.c_uint64]),
    ("replcore_record_encode", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_record_to", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_void_p]),
    ("replcore_record_header", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_void_p]),
    ("replcore_record_check", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_record_stamp", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
    ("replcore_status_text", ctypes.c_char_p, [ctypes.c_int32]),
    ("replcore_window_memory", ctypes.c_size_t, [ctypes.c_uint32]),
    ("replcore_window_init", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p]),
    ("replcore_window_take", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p]),
    ("replcore_window_settle", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64]),
    ("replcore_window_is_outstanding", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64]),
    ("replcore_window_gone", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64]),
    ("replcore_window_give_back", ctypes.c_int32, [ctypes.c_void_p, ctypes.c_uint64]),
    ("replcore_window_released", ctypes.c_uint64, [ctypes.c_void_p]),
    ("replcore_window_outstanding", ctypes.c_uint32, [ctypes.c_void_p]),
]
