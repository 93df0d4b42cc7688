/* replcore: the C interface. Made from ffi/src by a test; do not edit.
 *
 * Machines that decide, and a program that does. A machine opens nothing, waits for nothing and reads
XX *
 *   replcore_machine *m;                              in memory of the program
 *   replcore_leaf_init(memory, replcore_leaf_memory(), &config, &m);
 *   for (;;) {
 *     one input or one command                        replcore_handle_*, replcore_leaf_stop, ...
 *     do {
 *       replcore_poll(m, buf, sizeof buf, &output);   the next order; bytes that go with it are in buf
 *       do what output.kind says, and answer          before the next poll, or later
 *     } while (output.kind != REPLCORE_OUTPUT_KIND_IDLE);
 *     wait for input, or until output.next
 *   }
 *
 * Time. Microseconds on a clock of the program that never goes back, such as CLOCK_MONOTONIC. At the
 * time that IDLE gives call replcore_handle_timeout; early, late and needless calls are harmless. Read
 * the clock after the bytes that are given, and give what has come before a timeout.
 *
 * Links. The program numbers them, below the number that the machine has room for (a leaf has one, 0);
 * a number is free again when replcore_handle_link_down was answered.
 * replcore_handle_recv takes whole frames; keep what it does not take in front of what comes next.
 * replcore_handle_writable gives credit, in bytes: nothing is sent without it, so give at least the
 * longest frame when the link's buffer is empty. Credit ends with the link.
 *
 * Memory is the program's. Nothing is allocated or freed, and no pointer is kept beyond the call, except
 * the machine's own memory, which must stay where it is; forget it when done. Pointers may be NULL only
 * where it says so; a length of 0 goes with any pointer. Texts end in a zero byte.
 *
 * Threads. A machine may be used by one thread at a time. Different machines are independent, and the
 * library has no state of its own. There are no callbacks.
 *
 * Answers. Most functions answer 0 or a negative status, with replcore_status_text for people. After a
 * negative one nothing has changed and nothing was written, unless the function says otherwise.
 *
 * Versions. The first field of a configuration is its size: fields that the library does not know have
 * to be zero, and those that the program does not know are zero, which always means the default.
 * Compare replcore_abi() with REPLCORE_ABI at the start. An output of an unknown kind: stop.
 *
 * Safety of what is stored. What the program is told to store (PERSIST, records that it takes, records
 * that it posts) has to survive the loss of power before the program says that it is safe.
 *
 * A library built without `std`, for a device, calls `void replcore_panic(void)`, which the program
 * supplies, when an invariant is broken: stop or reset there, and do not return. It has replcore_node_*,
 * replcore_member_* and replcore_noise_* only when it was built with the features `node`, `member` and
 * `noise`. */

#ifndef REPLCORE_H
#define REPLCORE_H

#include <stddef.h>
#include <stdint.h>

/*
 Compare with `replcore_abi()` at start: a difference means header and library do not belong
 together. Raised when a function, a structure or a meaning changes.
 */
#define REPLCORE_ABI 3

/*
 The record was posted at this node.
 */
#define REPLCORE_FROM_HERE 0

/*
 A leaf of this node sent it.
 */
#define REPLCORE_FROM_LEAF 1

/*
 A hub above this node sent it.
 */
#define REPLCORE_FROM_UPSTREAM 2

/*
 Registers at a hub, posts to it and receives what the hub's queue of its name holds.
 */
#define REPLCORE_ROLE_LEAF 0

/*
 A program at a node: its records get their identity there, and it reads as a consumer.
 */
#define REPLCORE_ROLE_CLIENT 1

/*
 What another end of a link may be beside those two: a hub.
 */
#define REPLCORE_ROLE_HUB 2

/*
 Bytes of a batch header in a log.
 */
#define REPLCORE_BATCH_HEADER_BYTES 32

/*
 Bytes of a frame of records before the records.
 */
#define REPLCORE_RECORDS_HEAD_BYTES 40

/*
 Bytes that a buffer for `replcore_poll` needs at most.
 */
#define REPLCORE_POLL_BYTES_MAX 512

/*
 The kind of an entry that is a record. Kinds 2 to 15 are for the owner of a log.
 */
#define REPLCORE_ENTRY_RECORD 1

/*
 "Never", as a time.
 */
#define REPLCORE_NEVER UINT64_MAX

/*
 "Nobody dialled", in replcore_handle_link_up.
 */
#define REPLCORE_NOT_DIALED UINT32_MAX

/*
 A link that keeps order and loses nothing until it breaks, such as TCP.
 */
#define REPLCORE_TRANSPORT_STREAM 1

/*
 A link that may lose, repeat or reorder frames, such as a serial line under COBS.
 */
#define REPLCORE_TRANSPORT_DATAGRAM 2

/*
 Why something could not be kept: no space now.
 */
#define REPLCORE_FAILURE_FULL 1

/*
 Why something could not be kept: the bytes are not what they should be.
 */
#define REPLCORE_FAILURE_CORRUPT 2

/*
 Why something could not be kept: the medium does not work.
 */
#define REPLCORE_FAILURE_IO 3

/*
 Why entries will not come: their time to live had ended.
 */
#define REPLCORE_SKIP_EXPIRED 1

/*
 Why entries will not come: the queue was at its limit and drops the oldest.
 */
#define REPLCORE_SKIP_DROPPED 2

/*
 Why entries will not come: an operator purged them.
 */
#define REPLCORE_SKIP_PURGED 3

/*
 Why entries will not come: the medium lost them.
 */
#define REPLCORE_SKIP_LOST 4

/*
 Why entries will not come: acknowledged before, and no longer held.
 */
#define REPLCORE_SKIP_FORGOTTEN 5

/*
 Bytes that a name or address takes with the zero behind it.
 */
#define REPLCORE_NAME_BYTES 64

/*
 The key of a persisted record: the registration at the node in `node`.
 */
#define REPLCORE_KEY_REGISTRATION 1

/*
 The key of a persisted record: the term and the vote of a member.
 */
#define REPLCORE_KEY_BALLOT 2

/*
 The key of a persisted record: the configuration of a member's cluster.
 */
#define REPLCORE_KEY_MEMBERS 3

/*
 The key of a persisted record: the latest term in which the hub in `node` has taken this node in.
 */
#define REPLCORE_KEY_TERM 4

/*
 Timing for one building: a leader that dies is replaced within a second. The default.
 */
#define REPLCORE_PROFILE_LAN 0

/*
 Timing for lines across the world: some seconds.
 */
#define REPLCORE_PROFILE_WAN 1

/*
 Timing for those that sleep: half a minute.
 */
#define REPLCORE_PROFILE_BATTERY 2

/*
 Votes, and can lead.
 */
#define REPLCORE_MEMBERSHIP_VOTER 0

/*
 Follows and does not vote.
 */
#define REPLCORE_MEMBERSHIP_LEARNER 1

/*
 No member of the election, or not yet: it learns from the others what the cluster is.
 */
#define REPLCORE_MEMBERSHIP_NONE 2

/*
 Most bytes of metadata.
 */
#define REPLCORE_METADATA_BYTES 256

/*
 A hub above this node, at which it registers.
 */
#define REPLCORE_DIAL_UPSTREAM 0

/*
 A leaf below this node, which does not dial by itself.
 */
#define REPLCORE_DIAL_LEAF 1

/*
 "On no link", where a link is told.
 */
#define REPLCORE_NO_LINK UINT32_MAX

/*
 Bytes of every key, and of what a handshake takes of randomness.
 */
#define REPLCORE_NOISE_KEY_BYTES 32

/*
 The longest packet of a handshake.
 */
#define REPLCORE_NOISE_HANDSHAKE_BYTES_MAX 114

/*
 Bytes of a packet before its frame.
 */
#define REPLCORE_NOISE_HEAD_BYTES 5

/*
 Bytes that a packet has beside its frame.
 */
#define REPLCORE_NOISE_OVERHEAD_BYTES 21

/*
 The packet, of this one byte, that has the other end begin anew.
 */
#define REPLCORE_NOISE_UNKNOWN_PACKET 5

/*
 The end that begins: the leaf.
 */
#define REPLCORE_NOISE_BEGINS 1

/*
 The end that answers: the hub.
 */
#define REPLCORE_NOISE_ANSWERS 2

/*
 The packet is passed over, for `reason`; it was counted, or is left over from before the start packet.
 */
#define REPLCORE_NOISE_REFUSED 0

/*
 BEGINS: the answer is there, and the link is up: tell the machine.
 */
#define REPLCORE_NOISE_UP 1

/*
 A frame of the link.
 */
#define REPLCORE_NOISE_FRAME 2

/*
 BEGINS: the other end does not know the link any more: it is down. Tell the machine, and begin anew
 when it dials.
 */
#define REPLCORE_NOISE_LOST 3

/*
 ANSWERS: somebody begins: find the key, and answer.
 */
#define REPLCORE_NOISE_START 4

/*
 ANSWERS: who was answered last has shown that it is there: the link before, if there was one, is down,
 and its link is up, with this first frame.
 */
#define REPLCORE_NOISE_FIRST 5

/*
 ANSWERS: a packet of a link that is not known here. The packet REPLCORE_NOISE_UNKNOWN_PACKET, once a line, would
 have the other end begin anew.
 */
#define REPLCORE_NOISE_UNKNOWN 6

/*
 Why a packet is refused: it is not one that is due, or of another version.
 */
#define REPLCORE_NOISE_MALFORMED 1

/*
 Why a packet is refused: it was made with another key, or changed under way. When it is an answer, the
 handshake has failed: begin anew when the machine dials.
 */
#define REPLCORE_NOISE_FORGED 2

/*
 Why a packet is refused: it was there before, or a later one was.
 */
#define REPLCORE_NOISE_REPLAYED 3

/*
 Nothing to deliver now.
 */
#define REPLCORE_NEXT_NOTHING 0

/*
 An entry to deliver.
 */
#define REPLCORE_NEXT_DELIVER 1

/*
 An entry that was delivered as often as it may be: to the dead letters with it.
 */
#define REPLCORE_NEXT_DEAD 2

/*
 What a call answers: 0, or a negative number. After a negative one nothing has changed and no
 out-parameter was written, unless the function says otherwise.
 */
enum replcore_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /*
   Done.
   */
  REPLCORE_STATUS_OK = 0,
  /*
   A pointer is NULL that may not be.
   */
  REPLCORE_STATUS_NULL = -1,
  /*
   Memory or a buffer is too small.
   */
  REPLCORE_STATUS_SHORT = -2,
  /*
   The structure says a size that this library does not know, with a tail that is not zero.
   */
  REPLCORE_STATUS_STRUCT_SIZE = -3,
  /*
   The pointer is not a machine, or not of the kind that the function is for.
   */
  REPLCORE_STATUS_KIND = -4,
  /*
   A number is not one of those that have a meaning there.
   */
  REPLCORE_STATUS_VALUE = -5,
  /*
   A name is empty, longer than 63 bytes, or has a byte other than A-Z a-z 0-9 . _ - : /
   */
  REPLCORE_STATUS_NAME = -6,
  /*
   A text is longer than its limit or not UTF-8.
   */
  REPLCORE_STATUS_TEXT = -7,
  /*
   The stored state is malformed, of a later version, or came after the first input.
   */
  REPLCORE_STATUS_RESTORE = -8,
  /*
   More bytes are needed to tell.
   */
  REPLCORE_STATUS_INCOMPLETE = -9,
  /*
   A length is out of range.
   */
  REPLCORE_STATUS_LENGTH = -10,
  /*
   The checksum does not match.
   */
  REPLCORE_STATUS_CHECKSUM = -11,
  /*
   The form is not what it has to be, or the entry is not a record.
   */
  REPLCORE_STATUS_MALFORMED = -12,
  /*
   The log ends here: nothing was written behind.
   */
  REPLCORE_STATUS_END = -13,
  /*
   The log ends here with a batch that was not written whole.
   */
  REPLCORE_STATUS_TORN = -14,
  /*
   The log was written by a later version of this library.
   */
  REPLCORE_STATUS_FORMAT = -15,
  /*
   There is no room for it now, or it does not fit the state the machine is in.
   */
  REPLCORE_STATUS_REFUSED = -16,
  /*
   A table is full.
   */
  REPLCORE_STATUS_FULL = -17,
  /*
   This node does not lead: ask the leader.
   */
  REPLCORE_STATUS_NOT_LEADING = -18,
  /*
   The change before is not through yet: try again.
   */
  REPLCORE_STATUS_BUSY = -19,
  /*
   Made with another key, or changed under way.
   */
  REPLCORE_STATUS_FORGED = -20,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum replcore_status replcore_status;
#else
typedef int32_t replcore_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/*
 What a member does in the election.
 */
enum replcore_role
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /*
   Takes part in no election.
   */
  REPLCORE_ROLE_NONE = 0,
  /*
   Follows, does not vote.
   */
  REPLCORE_ROLE_LEARNER = 1,
  /*
   Follows, votes.
   */
  REPLCORE_ROLE_FOLLOWER = 2,
  /*
   Asks whether it would be voted for.
   */
  REPLCORE_ROLE_PRE_CANDIDATE = 3,
  /*
   Asks for votes.
   */
  REPLCORE_ROLE_CANDIDATE = 4,
  /*
   Leads. Whether it may say so is what replcore_member_leader_until tells.
   */
  REPLCORE_ROLE_LEADER = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum replcore_role replcore_role;
#else
typedef int32_t replcore_role;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/*
 What a machine orders. An unknown kind comes from a later library: stop, do not pass over it.
 */
enum replcore_output_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /*
   Nothing more now; call replcore_handle_timeout at `next` (microseconds, REPLCORE_NEVER).
   */
  REPLCORE_OUTPUT_KIND_IDLE = 0,
  /*
   Write the first `len` bytes of the buffer, one frame, to `link`.
   */
  REPLCORE_OUTPUT_KIND_SEND = 1,
  /*
   Write one frame of records to `link`: a head by replcore_records_head with `stream` and
   `round`, then whole records of the own queue `queue` and class `message_class` from
   `position` and `offset` on, or a part of one, at most `bytes_max` bytes of them. Answer
   replcore_handle_sent or replcore_handle_gone.
   */
  REPLCORE_OUTPUT_KIND_SEND_RECORDS = 2,
  /*
   Take the next `len` bytes of `link`: records from `position` and `offset` on, of the stream
   of `node`, `queue`, `message_class` and `epoch`; `completed` whole ones and `tail_bytes` of
   one more; compressed when `raw_bytes` is not 0. Keep them, then answer
   replcore_handle_taken, or replcore_handle_refused.
   */
  REPLCORE_OUTPUT_KIND_TAKE_RECORDS = 3,
  /*
   Entries `position` up to and without `next` of the stream of `node`, `queue`,
   `message_class` and `epoch` will not come, for `reason`. Answer replcore_handle_taken.
   */
  REPLCORE_OUTPUT_KIND_TAKE_SKIP = 4,
  /*
   Throw away the next `len` bytes of `link`.
   */
  REPLCORE_OUTPUT_KIND_SKIP_BYTES = 5,
  /*
   Take the next `len` bytes of `link`: a call (`reason` 0) or a reply (1) of number `token`.
   */
  REPLCORE_OUTPUT_KIND_TAKE_CALL = 6,
  /*
   Entries of the own queue `queue` and class `message_class` before `position` are
   acknowledged and no longer needed.
   */
  REPLCORE_OUTPUT_KIND_RELEASE = 7,
  /*
   Move the entry at `position` of `queue` and `message_class` to its dead letters.
   */
  REPLCORE_OUTPUT_KIND_DEAD_LETTER = 8,
  /*
   The stream of `node`, `queue`, `message_class` and `epoch` goes on at `position`, whatever was
   noted of it before: its owner has begun a new life of its log. Make that durable and answer
   replcore_handle_taken, or replcore_handle_refused.
   */
  REPLCORE_OUTPUT_KIND_PLACE = 9,
  /*
   How far was the stream of `node`, `queue`, `message_class` and `epoch` taken? Answer
   replcore_handle_answer_inbound with `token`.
   */
  REPLCORE_OUTPUT_KIND_ASK_INBOUND = 10,
  /*
   What does the own queue `queue` and class `message_class`, whose name is the first `len`
   bytes of the buffer, hold? Answer replcore_handle_answer_outbound with `token`; from then
   on until the link is down tell its growth by replcore_handle_appended for `link` and
   `stream`.
   */
  REPLCORE_OUTPUT_KIND_ASK_OUTBOUND = 11,
  /*
   May the client of `link` read `queue` as the consumer in the buffer, which
   replcore_subscribe_read reads? Answer replcore_handle_answer_subscribed or
   replcore_handle_answer_denied with `token`.
   */
  REPLCORE_OUTPUT_KIND_ASK_SUBSCRIBE = 12,
  /*
   Open a link to the place numbered `dial`; then replcore_handle_link_up or
   replcore_handle_dial_failed.
   */
  REPLCORE_OUTPUT_KIND_DIAL = 13,
  /*
   Close `link` once what was written is out; then replcore_handle_link_down.
   */
  REPLCORE_OUTPUT_KIND_HANGUP = 14,
  /*
   Offer the bytes of `link` that were not taken again.
   */
  REPLCORE_OUTPUT_KIND_RESUME = 15,
  /*
   Store the first `len` bytes of the buffer under (`key`, `node`) in place of what it held; then
   replcore_handle_persisted or replcore_handle_failed with `token`.
   */
  REPLCORE_OUTPUT_KIND_PERSIST = 16,
  /*
   Remove what is stored under (`key`, `node`).
   */
  REPLCORE_OUTPUT_KIND_FORGET = 17,
  /*
   Something happened; the meaning of `event` and the other fields is with the machine's kind.
   */
  REPLCORE_OUTPUT_KIND_EVENT = 18,
  /*
   The buffer is too small; nothing is lost. Poll again with `len` bytes.
   */
  REPLCORE_OUTPUT_KIND_NEED_BUFFER = 19,
  /*
   A broken invariant, described by the first `len` bytes of the buffer. The machine does
   nothing more.
   */
  REPLCORE_OUTPUT_KIND_HALTED = 20,
  /*
   Where does a reader of the own queue `queue` and class `message_class` go on that was
   `position` far in the life `epoch` of this log, or in a copy of it that is gone? Ask
   replcore_place_after and answer replcore_handle_answer_place with `token`.
   */
  REPLCORE_OUTPUT_KIND_ASK_PLACE = 21,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum replcore_output_kind replcore_output_kind;
#else
typedef uint32_t replcore_output_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/*
 What a leaf tells the program, in `event` of an output of kind EVENT.
 */
enum replcore_leaf_event
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /*
   The node at the other end is `node`.
   */
  REPLCORE_LEAF_EVENT_CONNECTED = 1,
  /*
   The hub has granted a lease of `next` milliseconds, for the first time on this link.
   */
  REPLCORE_LEAF_EVENT_REGISTERED = 2,
  /*
   The other end refuses, for `reason`, one of REPLCORE_REFUSE_*. The leaf tries again later.
   */
  REPLCORE_LEAF_EVENT_REFUSED = 3,
  /*
   The link has ended. The leaf dials again by itself.
   */
  REPLCORE_LEAF_EVENT_DISCONNECTED = 4,
  /*
   Something that this header does not know; may be passed over.
   */
  REPLCORE_LEAF_EVENT_OTHER = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum replcore_leaf_event replcore_leaf_event;
#else
typedef uint32_t replcore_leaf_event;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/*
 Why a node refuses another.
 */
enum replcore_refuse
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /*
   No version in common.
   */
  REPLCORE_REFUSE_VERSION = 1,
  /*
   The name is not a name.
   */
  REPLCORE_REFUSE_NAME = 2,
  /*
   The certificate does not carry the name.
   */
  REPLCORE_REFUSE_IDENTITY = 3,
  /*
   A live node has this name and is another instance.
   */
  REPLCORE_REFUSE_NAME_IN_USE = 4,
  /*
   Two names with one identity.
   */
  REPLCORE_REFUSE_COLLISION = 5,
  /*
   The table of leaves, links or consumers is full.
   */
  REPLCORE_REFUSE_FULL = 6,
  /*
   Too many at once.
   */
  REPLCORE_REFUSE_BUSY = 7,
  /*
   The receiver does not take this role.
   */
  REPLCORE_REFUSE_ROLE = 8,
  /*
   The consumer may not be read, or is being read by another client.
   */
  REPLCORE_REFUSE_CONSUMER = 9,
  /*
   The other end is of another cluster.
   */
  REPLCORE_REFUSE_CLUSTER = 10,
  /*
   This node is no member of the other's cluster.
   */
  REPLCORE_REFUSE_STRANGER = 11,
  /*
   The other end, a hub, leads in a term that is over: the leaf refuses it. Dial another.
   */
  REPLCORE_REFUSE_TERM = 12,
  /*
   The other end, a hub, stands by for another. Dial that one.
   */
  REPLCORE_REFUSE_STANDBY = 13,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum replcore_refuse replcore_refuse;
#else
typedef uint32_t replcore_refuse;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/*
 What a member tells the program, in `event` of an output of kind EVENT.
 */
enum replcore_member_event
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /*
   This node leads, in the term `position`: the fencing token.
   */
  REPLCORE_MEMBER_EVENT_BECAME_LEADER = 1,
  /*
   This node led in the term `position`, and does no more.
   */
  REPLCORE_MEMBER_EVENT_LOST_LEADERSHIP = 2,
  /*
   `node` leads in the term `position`; 0 for nobody.
   */
  REPLCORE_MEMBER_EVENT_LEADER_CHANGED = 3,
  /*
   Who is a member has changed.
   */
  REPLCORE_MEMBER_EVENT_CONFIGURATION_CHANGED = 4,
  /*
   This node is no member any more.
   */
  REPLCORE_MEMBER_EVENT_REMOVED = 5,
  /*
   The peer `node` is there.
   */
  REPLCORE_MEMBER_EVENT_PEER_UP = 6,
  /*
   The peer `node` is not there any more.
   */
  REPLCORE_MEMBER_EVENT_PEER_DOWN = 7,
  /*
   What the peer `node` says of itself has changed.
   */
  REPLCORE_MEMBER_EVENT_PEER_CHANGED = 8,
  /*
   The peer `node` does not take this node, for `reason`, one of REPLCORE_REFUSE_*.
   */
  REPLCORE_MEMBER_EVENT_REFUSED = 9,
  /*
   Something that this header does not know; may be passed over.
   */
  REPLCORE_MEMBER_EVENT_OTHER = 10,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum replcore_member_event replcore_member_event;
#else
typedef uint32_t replcore_member_event;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/*
 What a node tells the program, in `event` of an output of kind EVENT.
 */
enum replcore_node_event
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /*
   The leaf `node` is registered, and on `link`.
   */
  REPLCORE_NODE_EVENT_LEAF_UP = 1,
  /*
   The link of the registered leaf `node` has ended. Its lease runs on.
   */
  REPLCORE_NODE_EVENT_LEAF_DOWN = 2,
  /*
   The leaf `node` has not renewed: it is not served until it registers again. Keep its queue.
   */
  REPLCORE_NODE_EVENT_LEASE_EXPIRED = 3,
  /*
   A link or a registration of `node`, 0 when that is not known, was refused for `reason`, one of
   REPLCORE_REFUSE_*.
   */
  REPLCORE_NODE_EVENT_PEER_REFUSED = 4,
  /*
   The hub at the place `dial` has granted a lease of `next` milliseconds, for the first time on
   this link.
   */
  REPLCORE_NODE_EVENT_REGISTERED = 5,
  /*
   The hub at the place `dial` refuses this node, for `reason`. It tries again later.
   */
  REPLCORE_NODE_EVENT_UPSTREAM_REFUSED = 6,
  /*
   The link to the place `dial` has ended.
   */
  REPLCORE_NODE_EVENT_DIAL_DOWN = 7,
  /*
   Something that this header does not know; may be passed over.
   */
  REPLCORE_NODE_EVENT_OTHER = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum replcore_node_event replcore_node_event;
#else
typedef uint32_t replcore_node_event;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/*
 Whether a peer is there.
 */
enum replcore_peer_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /*
   Not heard of, or given up.
   */
  REPLCORE_PEER_STATE_DOWN = 0,
  /*
   Was there, and has fallen silent. Still counts as there.
   */
  REPLCORE_PEER_STATE_SUSPECT = 1,
  /*
   There.
   */
  REPLCORE_PEER_STATE_UP = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum replcore_peer_state replcore_peer_state;
#else
typedef uint32_t replcore_peer_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/*
 Says which queues a record goes to: rules, the registered leaves, the hubs above, and what the
 poster asks for. Memory, threads and moving as for a machine; it has no orders.

 What was posted here or came from a leaf goes to every hub above; what came from a hub above goes to
 none. Nothing goes back to the node it came from, nor to the queue of its own origin.
 */
typedef struct replcore_dispatch replcore_dispatch;

/*
 A machine, in memory of the program. May be used from one thread at a time; different machines
 are independent, and the library has no global state. It must stay where it was made: a copy is
 not a machine. Nothing is to be freed: when it is done with, the memory may be used for
 something else.
 */
typedef struct replcore_machine replcore_machine;

/*
 One end of a line without TLS, whose packets stand in place of frames under COBS, on a serial line or
 over TCP. Memory, threads and moving as for a machine; it has no orders, and the link is a
 REPLCORE_TRANSPORT_DATAGRAM.

   the end that begins                          the end that answers
   replcore_noise_start       --- packet --->   replcore_noise_take: START, with a name or none
                                                replcore_noise_answer_shared or _pinned
   replcore_noise_take: UP    <-- packet ----   replcore_noise_answered
   replcore_noise_seal        --- packet --->   replcore_noise_take: FIRST, with the frame
   replcore_noise_take: FRAME <-- packet ----   replcore_noise_seal

 Begin when the machine dials, and tell it of a link when it is up; its identity is the name that the key
 is for. Without an answer within 5 s the dial has failed. An answer is work, and start packets that were
 heard can be sent again by anybody: pass over those that come within 50 ms of one. Random bytes have to come from a source that
 nobody can guess, fresh for each handshake: those that were used before give the link away. Call
 replcore_noise_forget when a link is down, and before the memory is used for something else: it clears
 the keys of the link. Those of the program are not kept.
 */
typedef struct replcore_noise replcore_noise;

/*
 The place of a named consumer in one queue and class, whose entries are handed to programs: in
 order, settled in any order, again when they are not settled in time, and given up for dead after a
 number of deliveries. Memory, threads and moving as for a machine; it has no orders. What it knows
 is lost with the process: then everything that is not released is delivered again, and counts anew.
 */
typedef struct replcore_window replcore_window;

/*
 Makes frames of the bytes of a serial line as they come. All zeros at the start; not for the
 program to look into.
 */
typedef struct replcore_cobs_decoder {
  /*
   Not for the program.
   */
  uint64_t state[8];
} replcore_cobs_decoder;

/*
 What a dispatch is told at its start. 0 means the default.
 */
typedef struct replcore_dispatch_config {
  /*
   sizeof(replcore_dispatch_config).
   */
  uint32_t struct_size;
  /*
   Rules, at most 65,535; default 16. About 84 bytes of memory each.
   */
  uint32_t rules_max;
  /*
   Queues named in all rules together, at most 65,535; default 64. 72 bytes of memory each; so are
   the two that follow.
   */
  uint32_t targets_max;
  /*
   Registered leaves, at most 1,000,000; default 64.
   */
  uint32_t leaves_max;
  /*
   Hubs above, at most 1,000,000; default 4.
   */
  uint32_t upstreams_max;
  /*
   1: no hub, records go to the hubs above and nowhere else.
   */
  uint32_t without_leaves;
  /*
   The node's name: nothing is queued for itself.
   */
  const char *name;
} replcore_dispatch_config;

/*
 A queue that a record goes to.
 */
typedef struct replcore_destination {
  /*
   Its id.
   */
  uint64_t queue;
  /*
   Its name, with a zero byte behind it.
   */
  char name[REPLCORE_NAME_BYTES];
} replcore_destination;

/*
 How a queue stood when a life of its log ended.
 */
typedef struct replcore_life {
  /*
   The number of entries that the queue had ever held.
   */
  uint64_t end;
  /*
   The life.
   */
  uint32_t epoch;
  /*
   Zero.
   */
  uint32_t reserved;
} replcore_life;

/*
 What a leaf is told at its start. All zeros but `struct_size`, `name`, `instance` and `epoch` is
 a sound configuration: 0 and NULL mean the default.
 */
typedef struct replcore_leaf_config {
  /*
   sizeof(replcore_leaf_config).
   */
  uint32_t struct_size;
  /*
   The life of the leaf's log; replcore_epoch_first makes the first one, replcore_epoch_next that
   of each later start. Not 0.
   */
  uint32_t epoch;
  /*
   Drawn once, when the leaf's log was made, and kept with it. Not 0.
   */
  uint64_t instance;
  /*
   For jitter; two leaves should not have the same.
   */
  uint64_t seed;
  /*
   The leaf's name.
   */
  const char *name;
  /*
   A queue of the hub to read beside the one of the leaf's name.
   */
  const char *extra_queue;
  /*
   Where the leaf can be reached, host:port.
   */
  const char *address;
  /*
   Longest frame to take, in bytes, 512 to 1,048,576; default 65,536.
   */
  uint32_t frame_bytes_max;
  /*
   Bytes of records that may be under way on one incoming stream; default 1,048,576.
   */
  uint32_t window_bytes;
  /*
   Something is sent at least this often, in milliseconds; default 10,000.
   */
  uint32_t keepalive_ms;
  /*
   On a line that loses frames: silence after which something is said again; default 1,000.
   */
  uint32_t retransmit_ms;
  /*
   The least wait before dialling again, in milliseconds; default 500.
   */
  uint32_t retry_ms_min;
  /*
   The greatest wait before dialling again, in milliseconds; default 30,000.
   */
  uint32_t retry_ms_max;
  /*
   The registration is renewed this often, in milliseconds; default 300,000.
   */
  uint32_t register_ms;
  /*
   The lease to ask for, in milliseconds; default 900,000.
   */
  uint32_t lease_ms;
  /*
   0 holds the link open. Otherwise the leaf dials at this interval, in milliseconds, exchanges
   what there is and closes.
   */
  uint32_t poll_interval_ms;
  /*
   One of REPLCORE_ROLE_*; default a leaf.
   */
  uint32_t role;
  /*
   The own queue that the other end reads; default `hub`.
   */
  const char *queue;
  /*
   The consumer that a client reads as; NULL when it only posts.
   */
  const char *consumer;
  /*
   Only messages of this type, when the consumer is new; NULL for all.
   */
  const char *consumer_type;
  /*
   1: a new consumer starts with what the node already holds.
   */
  uint32_t consumer_from_start;
  /*
   1: does not dial, but waits for its hub to.
   */
  uint32_t waits;
} replcore_leaf_config;

/*
 What a link has counted. Noise is counted here and never becomes an error.
 */
typedef struct replcore_link_stats {
  /*
   Frames with a length out of range.
   */
  uint64_t bad_length;
  /*
   Frames whose checksum did not match.
   */
  uint64_t bad_checksum;
  /*
   Frames of an unknown type.
   */
  uint64_t bad_type;
  /*
   Frames whose payload did not decode.
   */
  uint64_t bad_payload;
  /*
   Frames that made no sense where they came.
   */
  uint64_t violations;
  /*
   Links given up because the other end fell silent.
   */
  uint64_t silent;
  /*
   Frames of records that brought nothing new.
   */
  uint64_t repeated;
  /*
   Times a receiving end went back to the last safe position.
   */
  uint64_t went_back;
  /*
   Times the store had no room.
   */
  uint64_t full;
  /*
   Acknowledgements that promised less than is asked for.
   */
  uint64_t below_level;
} replcore_link_stats;

/*
 A batch: what is written and synced as one and counts as a whole or not at all.
 */
typedef struct replcore_batch {
  /*
   Which segment it stands in: what is left over of another is not taken for one of this.
   */
  uint64_t segment;
  /*
   How many records the log has held before it.
   */
  uint64_t first_ordinal;
  /*
   Bytes of entries that follow its header.
   */
  uint32_t entries_len;
  /*
   Records in it, at most 65535.
   */
  uint32_t records;
} replcore_batch;

/*
 What the head of a frame of records says of the bytes after it.
 */
typedef struct replcore_records {
  /*
   The position of the first record.
   */
  uint64_t position;
  /*
   Bytes of the first record that were sent before.
   */
  uint32_t offset;
  /*
   Records that the frame completes.
   */
  uint32_t completed;
  /*
   Bytes of one further record that it begins or carries on and does not complete.
   */
  uint32_t tail_bytes;
  /*
   Bytes of the records before compression; 0 when they are not compressed.
   */
  uint32_t raw_bytes;
  /*
   From the order to send.
   */
  uint32_t round;
  /*
   The stream's number on the link, from the order to send.
   */
  uint32_t stream;
} replcore_records;

/*
 What a member is told at its start. All zeros but `struct_size`, `name`, `cluster` and
 `instance` is a sound configuration: 0 and NULL mean the default.
 */
typedef struct replcore_member_config {
  /*
   sizeof(replcore_member_config).
   */
  uint32_t struct_size;
  /*
   One of REPLCORE_PROFILE_*. All members have the same.
   */
  uint32_t profile;
  /*
   Drawn once and kept with what is stored: tells this member from another of its name. Not 0.
   */
  uint64_t instance;
  /*
   For waits that differ; two members should not have the same.
   */
  uint64_t seed;
  /*
   The member's name.
   */
  const char *name;
  /*
   The cluster's name: members of another are refused.
   */
  const char *cluster;
  /*
   Where the member can be reached, host:port.
   */
  const char *address;
  /*
   Other nodes that it can know of, 1 to 31; default 8.
   */
  uint32_t peers_max;
  /*
   Links open at once; they are numbered below. Default twice `peers_max`, at least that many.
   */
  uint32_t links_max;
  /*
   1: no election; the members only know of each other.
   */
  uint32_t without_election;
  /*
   What it is at its first start, one of REPLCORE_MEMBERSHIP_*.
   */
  uint32_t membership;
  /*
   The greater campaigns first, 1 to 255; default 100.
   */
  uint32_t priority;
  /*
   1: as leader it admits nobody by itself who asks to join.
   */
  uint32_t admits_nobody;
  /*
   The leader says so this often, in milliseconds.
   */
  uint32_t heartbeat_ms;
  /*
   The shortest wait for a heartbeat before a campaign, in milliseconds.
   */
  uint32_t timeout_ms_min;
  /*
   The longest wait for a heartbeat before a campaign, in milliseconds.
   */
  uint32_t timeout_ms_max;
  /*
   By how much the rate of a clock may be wrong, in millionths.
   */
  uint32_t clock_error_ppm;
  /*
   The least wait before dialling a peer again, in milliseconds.
   */
  uint32_t retry_ms_min;
  /*
   The greatest wait before dialling a peer again, in milliseconds.
   */
  uint32_t retry_ms_max;
  /*
   How long a link may take until both ends know each other, in milliseconds.
   */
  uint32_t handshake_ms;
  /*
   Silence after which a peer is suspected, in milliseconds.
   */
  uint32_t suspect_ms;
} replcore_member_config;

/*
 Who leads.
 */
typedef struct replcore_leader {
  /*
   Who.
   */
  uint64_t node;
  /*
   Its term: the fencing token.
   */
  uint64_t term;
  /*
   Since when this node knows it, in microseconds on this node's clock.
   */
  uint64_t since_us;
} replcore_leader;

/*
 What is known of a node. No pointers.
 */
typedef struct replcore_peer {
  /*
   Its id.
   */
  uint64_t node;
  /*
   Its name, with a zero byte behind it.
   */
  char name[REPLCORE_NAME_BYTES];
  /*
   Where it can be reached, with a zero byte behind it; empty when that is not known.
   */
  char address[REPLCORE_NAME_BYTES];
  /*
   What it says of itself, or the configuration says of it.
   */
  uint8_t metadata[REPLCORE_METADATA_BYTES];
  /*
   Bytes of metadata.
   */
  uint32_t metadata_len;
  /*
   How many times it has spoken of itself; 0 when all is from the configuration.
   */
  uint32_t version;
  /*
   What it is in the election, one of REPLCORE_MEMBERSHIP_*.
   */
  uint32_t membership;
  /*
   One of REPLCORE_PEER_STATE_*.
   */
  uint32_t state;
  /*
   1 when it is linked to this node.
   */
  uint32_t is_linked;
  /*
   The greater campaigns first.
   */
  uint32_t priority;
  /*
   Round trip, in microseconds; 0 when not known.
   */
  uint32_t round_trip_us;
  /*
   Zero.
   */
  uint32_t reserved;
} replcore_peer;

/*
 What a member has counted since its start.
 */
typedef struct replcore_member_counters {
  /*
   Of its links.
   */
  struct replcore_link_stats link;
  /*
   Frames sent.
   */
  uint64_t frames_sent;
  /*
   Bytes sent.
   */
  uint64_t bytes_sent;
  /*
   Heartbeats sent.
   */
  uint64_t heartbeats_sent;
  /*
   Heartbeats accepted.
   */
  uint64_t heartbeats_accepted;
  /*
   Heartbeats refused.
   */
  uint64_t heartbeats_refused;
  /*
   Times it asked whether it would be voted for.
   */
  uint32_t pre_votes;
  /*
   Elections it was a candidate in.
   */
  uint32_t elections;
  /*
   Elections won.
   */
  uint32_t won;
  /*
   Elections not won.
   */
  uint32_t lost;
  /*
   Votes given to others.
   */
  uint32_t votes_given;
  /*
   Votes refused to others.
   */
  uint32_t votes_refused;
  /*
   Times it led no more because a majority did not answer.
   */
  uint32_t quorum_lost;
  /*
   Times the known leader changed.
   */
  uint32_t changes;
  /*
   Messages from nodes that are no members.
   */
  uint32_t strangers;
  /*
   Messages with a term too far ahead to be true.
   */
  uint32_t implausible;
  /*
   Heartbeats of a second leader of one term: two nodes run with one name.
   */
  uint32_t conflicts;
  /*
   Configurations that make no sense.
   */
  uint32_t malformed;
  /*
   Times the vote or the configuration could not be stored.
   */
  uint32_t store_failed;
  /*
   Links of another cluster.
   */
  uint32_t wrong_cluster;
  /*
   Links that have proved to be another than they say.
   */
  uint32_t wrong_identity;
  /*
   Links of a second node with one name.
   */
  uint32_t name_in_use;
} replcore_member_counters;

/*
 A place that a node dials, or waits for.
 */
typedef struct replcore_dial {
  /*
   UPSTREAM: the own queue that the hub reads; NULL for `hub`.
   */
  const char *queue;
  /*
   One of REPLCORE_DIAL_*.
   */
  uint32_t kind;
  /*
   UPSTREAM: 1 when the node does not dial, but waits for that hub to.
   */
  uint32_t waits;
} replcore_dial;

/*
 What a node is told at its start. All zeros but `struct_size`, `name`, `instance` and `epoch` is a
 sound configuration, of a hub: 0 and NULL mean the default.
 */
typedef struct replcore_node_config {
  /*
   sizeof(replcore_node_config).
   */
  uint32_t struct_size;
  /*
   The life of the node's log, as of a leaf. Not 0.
   */
  uint32_t epoch;
  /*
   Drawn once, when the node's log was made, and kept with it. Not 0.
   */
  uint64_t instance;
  /*
   For jitter; two nodes should not have the same.
   */
  uint64_t seed;
  /*
   The node's name.
   */
  const char *name;
  /*
   A queue of the hubs above to read beside the one of the node's name.
   */
  const char *extra_queue;
  /*
   Where the node can be reached, host:port; told to the hubs above.
   */
  const char *address;
  /*
   The places to dial, in the order of their numbers; at most 1024.
   */
  const struct replcore_dial *dials;
  /*
   How many places.
   */
  uint32_t dial_count;
  /*
   Links open at once, those that it dials included; they are numbered below. At most 65,536;
   default 64. About 2 KiB of memory each.
   */
  uint32_t links_max;
  /*
   Leaves that may be registered, at most 1,000,000; default 64. About 450 bytes of memory each.
   */
  uint32_t leaves_max;
  /*
   1: no hub, no leaf may register.
   */
  uint32_t without_leaves;
  /*
   Longest frame to take, in bytes, 512 to 1,048,576; default 65,536.
   */
  uint32_t frame_bytes_max;
  /*
   Bytes of records that may be under way on one incoming stream; default 1,048,576.
   */
  uint32_t window_bytes;
  /*
   Something is sent at least this often, in milliseconds; default 10,000.
   */
  uint32_t keepalive_ms;
  /*
   On a line that loses frames: silence after which something is said again; default 1,000.
   */
  uint32_t retransmit_ms;
  /*
   Greeting and registration must be through by then, in milliseconds; default 5,000.
   */
  uint32_t handshake_ms;
  /*
   A stream for which there was no room is asked for again after this time, in milliseconds;
   default 1,000.
   */
  uint32_t full_retry_ms;
  /*
   The longest lease to grant, in milliseconds; default 900,000.
   */
  uint32_t lease_ms_max;
  /*
   The shortest lease to grant, in milliseconds, at most `lease_ms_max`; default 1,000.
   */
  uint32_t lease_ms_min;
  /*
   Registrations a second to admit, renewals not counted; default any number.
   */
  uint32_t admit_per_second;
  /*
   Registrations that may come at once, when there is such a limit; default 64.
   */
  uint32_t admit_burst;
  /*
   Who is turned away is asked to come back within this time, in milliseconds; default 2,000.
   */
  uint32_t admit_spread_ms;
  /*
   The least wait before dialling again, in milliseconds; default 500.
   */
  uint32_t retry_ms_min;
  /*
   The greatest wait before dialling again, in milliseconds; default 30,000.
   */
  uint32_t retry_ms_max;
  /*
   0 holds the links to hubs open; otherwise it dials at this interval, in milliseconds.
   */
  uint32_t poll_interval_ms;
  /*
   The registration at the hubs above is renewed this often, in milliseconds; default 300,000.
   */
  uint32_t register_ms;
  /*
   The lease to ask the hubs above for, in milliseconds; default 900,000.
   */
  uint32_t register_lease_ms;
} replcore_node_config;

/*
 A registered leaf. No pointers.
 */
typedef struct replcore_lease {
  /*
   Its id.
   */
  uint64_t node;
  /*
   Tells it from another leaf of its name.
   */
  uint64_t instance;
  /*
   When its lease ends or ended, in microseconds on this node's clock.
   */
  uint64_t until_us;
  /*
   The lease it asked for, in milliseconds.
   */
  uint32_t lease_ms;
  /*
   The link it is on, or REPLCORE_NO_LINK.
   */
  uint32_t link;
  /*
   1 while its lease runs; 0 when it has ended.
   */
  uint32_t is_held;
  /*
   Zero.
   */
  uint32_t reserved;
  /*
   Its name, with a zero byte behind it.
   */
  char name[REPLCORE_NAME_BYTES];
  /*
   Where it can be reached, with a zero byte behind it; empty when it did not say.
   */
  char address[REPLCORE_NAME_BYTES];
  /*
   A queue that it reads beside the one of its name; empty for none.
   */
  char queue[REPLCORE_NAME_BYTES];
} replcore_lease;

/*
 Who is at the other end of a link.
 */
typedef struct replcore_link_peer {
  /*
   Its id.
   */
  uint64_t node;
  /*
   One of REPLCORE_ROLE_LEAF, REPLCORE_ROLE_CLIENT, REPLCORE_ROLE_HUB.
   */
  uint32_t role;
  /*
   Round trip of the last ping, in microseconds; 0 when not known.
   */
  uint32_t round_trip_us;
  /*
   Its name, with a zero byte behind it.
   */
  char name[REPLCORE_NAME_BYTES];
} replcore_link_peer;

/*
 What is known of a place to dial.
 */
typedef struct replcore_dial_state {
  /*
   The link there, or REPLCORE_NO_LINK.
   */
  uint32_t link;
  /*
   1 when the hub there has granted a lease on that link.
   */
  uint32_t is_registered;
} replcore_dial_state;

/*
 What a node has counted since its start.
 */
typedef struct replcore_node_counters {
  /*
   Of its links, those that have ended included.
   */
  struct replcore_link_stats link;
  /*
   Registrations granted.
   */
  uint64_t registered;
  /*
   Renewals granted.
   */
  uint64_t renewed;
  /*
   Leases that ended without renewal.
   */
  uint64_t expired;
  /*
   Links and registrations refused.
   */
  uint64_t refused;
} replcore_node_counters;

/*
 What a client that wants to read asks for. No pointers.
 */
typedef struct replcore_subscribe {
  /*
   The name of the consumer, with a zero byte behind it.
   */
  char consumer[REPLCORE_NAME_BYTES];
  /*
   Only messages of this type, when the consumer is new; empty for all.
   */
  char message_type[REPLCORE_NAME_BYTES];
  /*
   1: a new consumer starts with what the node already holds.
   */
  uint32_t from_start;
} replcore_subscribe;

/*
 How the end that begins shows who it is, and knows the other: by `name` and `shared_key`, or by
 `own_key` and `hub_key`, with NULL for the others. Keys have REPLCORE_NOISE_KEY_BYTES bytes.
 */
typedef struct replcore_noise_identity {
  /*
   sizeof(replcore_noise_identity).
   */
  uint32_t struct_size;
  /*
   Zero.
   */
  uint32_t reserved;
  /*
   The own name; it travels in the clear.
   */
  const char *name;
  /*
   The key that only this end and the hub have.
   */
  const uint8_t *shared_key;
  /*
   The private half of the own pair, whose public half the hub has listed.
   */
  const uint8_t *own_key;
  /*
   The hub's public half.
   */
  const uint8_t *hub_key;
} replcore_noise_identity;

/*
 What came of a packet.
 */
typedef struct replcore_noise_taken {
  /*
   One of REPLCORE_NOISE_REFUSED, _UP, _FRAME, _LOST, _START, _FIRST, _UNKNOWN.
   */
  uint32_t kind;
  /*
   REFUSED: one of REPLCORE_NOISE_MALFORMED, _FORGED, _REPLAYED.
   */
  uint32_t reason;
  /*
   FRAME, FIRST: where in the packet the frame stands. START: where the name stands.
   */
  size_t at;
  /*
   Bytes of it. START: 0 for one that shows a public key, and no name.
   */
  size_t len;
} replcore_noise_taken;

/*
 What replcore_poll found. No pointers: the same layout everywhere, 104 bytes. Which fields mean
 something is with each kind; the others are zero.
 */
typedef struct replcore_output {
  /*
   One of REPLCORE_OUTPUT_KIND_*.
   */
  uint32_t kind;
  /*
   Bytes.
   */
  uint32_t len;
  /*
   A link.
   */
  uint32_t link;
  /*
   A stream of that link.
   */
  uint32_t stream;
  /*
   For the answer.
   */
  uint64_t token;
  /*
   A node.
   */
  uint64_t node;
  /*
   A queue.
   */
  uint64_t queue;
  /*
   A place in a stream.
   */
  uint64_t position;
  /*
   The end of a range, or a time in microseconds.
   */
  uint64_t next;
  /*
   Bytes of the record at `position` that were there before.
   */
  uint32_t offset;
  /*
   A class, 0 to 3.
   */
  uint32_t message_class;
  /*
   An epoch.
   */
  uint32_t epoch;
  /*
   Most bytes of records.
   */
  uint32_t bytes_max;
  /*
   Records that are complete.
   */
  uint32_t completed;
  /*
   Bytes of one more record.
   */
  uint32_t tail_bytes;
  /*
   Bytes before compression.
   */
  uint32_t raw_bytes;
  /*
   The round of a frame of records.
   */
  uint32_t round;
  /*
   Why, or which of two.
   */
  uint32_t reason;
  /*
   What happened.
   */
  uint32_t event;
  /*
   A place to dial, by its number: of a node in the order of its configuration, of a member see
   replcore_member_dial_target.
   */
  uint32_t dial;
  /*
   What a persisted record is about, one of REPLCORE_KEY_*.
   */
  uint32_t key;
} replcore_output;

/*
 A pair of name and value that applications hang on a message.
 */
typedef struct replcore_header {
  /*
   Its name, at most 1024 bytes.
   */
  const char *name;
  /*
   Its value.
   */
  const uint8_t *value;
  /*
   Bytes of the value.
   */
  size_t value_len;
} replcore_header;

/*
 What a program posts. All zeros but `struct_size` is an empty message; NULL and 0 mean "not
 given".
 */
typedef struct replcore_message {
  /*
   sizeof(replcore_message).
   */
  uint32_t struct_size;
  /*
   Zero.
   */
  uint32_t reserved;
  /*
   What kind of message it is; dispatch rules look at it. At most 255 bytes.
   */
  const char *message_type;
  /*
   The media type of the body. At most 1024 bytes.
   */
  const char *content_type;
  /*
   Queues that the poster asks for, beside what the dispatch rules say.
   */
  const char *const *to;
  /*
   The name of the node where it is posted.
   */
  const char *origin_name;
  /*
   What the message is about. At most 1024 bytes.
   */
  const uint8_t *key;
  /*
   Bytes of the key.
   */
  size_t key_len;
  /*
   Names the act of posting: a second post of the same key at one node is the same message. At
   most 1024 bytes.
   */
  const uint8_t *idempotency_key;
  /*
   Bytes of the idempotency key.
   */
  size_t idempotency_key_len;
  /*
   The body.
   */
  const uint8_t *body;
  /*
   Bytes of the body.
   */
  size_t body_len;
  /*
   When it is no longer worth delivering, in milliseconds since 1970; 0 for never.
   */
  uint64_t expires_wall_ms;
  /*
   The time at the origin as a stamp that rises with every message, by replcore_stamp_next; 0
   for the plain time that replcore_record_encode is given.
   */
  uint64_t stamp;
  /*
   Pairs of name and value for the applications.
   */
  const struct replcore_header *headers;
  /*
   How many pairs, at most 32.
   */
  uint32_t header_count;
  /*
   How many queues `to` has, at most 32.
   */
  uint32_t to_count;
} replcore_message;

/*
 What a record is called, for ever and on every hop.
 */
typedef struct replcore_record_id {
  /*
   The node where it was posted: the id of that node's name. 0: no node has stamped it yet.
   */
  uint64_t origin;
  /*
   The number within origin, epoch and class; the first is 1.
   */
  uint64_t seq;
  /*
   The life of the origin's log.
   */
  uint32_t epoch;
  /*
   The class, 0 (most urgent) to 3.
   */
  uint32_t message_class;
} replcore_record_id;

/*
 Where a part of a record stands: offsets from the start of the record.
 */
typedef struct replcore_part {
  /*
   The name.
   */
  uint32_t name_at;
  /*
   Bytes of the name.
   */
  uint32_t name_len;
  /*
   The value; of a queue asked for there is none.
   */
  uint32_t value_at;
  /*
   Bytes of the value.
   */
  uint32_t value_len;
} replcore_part;

/*
 What is in a record. Each `_at` is an offset from the start of the record, 0 with a length of 0
 when it was not given.
 */
typedef struct replcore_record {
  /*
   Its identity.
   */
  struct replcore_record_id id;
  /*
   The time at its origin in milliseconds since 1970; 0 when not known.
   */
  uint64_t time_wall_ms;
  /*
   When it is no longer worth delivering, in milliseconds since 1970; 0 for never.
   */
  uint64_t expires_wall_ms;
  /*
   The type.
   */
  uint32_t type_at;
  /*
   Bytes of the type.
   */
  uint32_t type_len;
  /*
   The key.
   */
  uint32_t key_at;
  /*
   Bytes of the key.
   */
  uint32_t key_len;
  /*
   The media type of the body.
   */
  uint32_t content_type_at;
  /*
   Bytes of the media type.
   */
  uint32_t content_type_len;
  /*
   The name of the origin.
   */
  uint32_t origin_name_at;
  /*
   Bytes of the name of the origin.
   */
  uint32_t origin_name_len;
  /*
   What names the act of posting.
   */
  uint32_t idempotency_key_at;
  /*
   Bytes of it.
   */
  uint32_t idempotency_key_len;
  /*
   The body.
   */
  uint32_t body_at;
  /*
   Bytes of the body.
   */
  uint32_t body_len;
  /*
   How many queues it asks for; replcore_record_to gives them.
   */
  uint32_t to_count;
  /*
   How many headers it has; replcore_record_header gives them.
   */
  uint32_t header_count;
  /*
   The time at its origin as a stamp, of which `time_wall_ms` is the greater part; of two
   messages with one type and key the one with the greater stamp is the current one.
   */
  uint64_t stamp;
} replcore_record;

/*
 What a consumer gets next.
 */
typedef struct replcore_next {
  /*
   One of REPLCORE_NEXT_*.
   */
  uint32_t kind;
  /*
   DELIVER: how many times it was delivered, this one included.
   */
  uint32_t deliveries;
  /*
   DELIVER, DEAD: which entry.
   */
  uint64_t position;
  /*
   NOTHING: when something is due again, in microseconds; REPLCORE_NEVER when nothing is
   outstanding.
   */
  uint64_t wake_us;
} replcore_next;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The ABI number of the library; see REPLCORE_ABI.
 */
uint32_t replcore_abi(void);

/*
 The version of the library as text, such as "0.1.0".
 */
const char *replcore_version(void);

/*
 Most bytes that a frame of `frame_bytes` takes on a serial line, delimiter included.
 */
size_t replcore_cobs_encoded_max(size_t frame_bytes);

/*
 Writes `frame` with its CRC-32C as one COBS packet, delimiter included, to `out`; `*written`
 gets its length. SHORT when `cap` is less than it needs, which is never more than
 `replcore_cobs_encoded_max`.

 Asks of the caller:
 `frame` has `len` bytes, `out` has `cap`, `written` is writable; they do not overlap.
 */
replcore_status replcore_cobs_encode(const uint8_t *frame,
                                     size_t len,
                                     uint8_t *out,
                                     size_t cap,
                                     size_t *written);

/*
 The packets dropped so far because they were damaged or did not fit; 0 for NULL.

 Asks of the caller:
 `decoder` is NULL or points to a decoder.
 */
uint64_t replcore_cobs_bad(struct replcore_cobs_decoder *decoder);

/*
 Takes bytes of `line` up to the end of the first sound frame, or all of them; `*taken` gets how
 many. `*frame_len` gets the length of the frame that is then at the start of `buf`, or
 SIZE_MAX when there is none yet. Give the rest of the line again once the frame is used. `buf`
 has to be the same until then, with room for the longest frame and 4 bytes more; longer packets
 are dropped and counted.

 Asks of the caller:
 `decoder`, `taken` and `frame_len` are writable, `line` has `len` bytes and `buf` has `cap`;
 they do not overlap.
 */
replcore_status replcore_cobs_take(struct replcore_cobs_decoder *decoder,
                                   const uint8_t *line,
                                   size_t len,
                                   uint8_t *buf,
                                   size_t cap,
                                   size_t *taken,
                                   size_t *frame_len);

/*
 Bytes that a dispatch of this configuration needs, wherever they begin; 0 for one that
 replcore_dispatch_init refuses.

 Asks of the caller:
 `config` and the name in it are readable.
 */
size_t replcore_dispatch_memory(const struct replcore_dispatch_config *config);

/*
 Makes a dispatch in `memory`, without rules, leaves and hubs above; `*made` gets it.

 Asks of the caller:
 `memory` has `len` bytes that nothing else uses while the dispatch is used; `config` and the name in
 it are readable; `made` is writable and not inside `memory`.
 */
replcore_status replcore_dispatch_init(void *memory,
                                       size_t len,
                                       const struct replcore_dispatch_config *config,
                                       struct replcore_dispatch **made);

/*
 Adds a rule. It is for messages of `message_type`: exactly, with a trailing `*` by what they begin
 with, and for all when it is NULL; and for those of the node `origin`, or of all when that is NULL.
 They go to the `to_count` queues `to`, 1 to 32, among which `*` is every registered leaf. To replace
 all rules, make a second dispatch and go over to it, or clear and add.

 FULL, TEXT for a type of more than 63 bytes or with a `*` before its end, NAME, VALUE without queues.

 Asks of the caller:
 `made` is a dispatch, `to` has `to_count` texts; all texts end in a zero byte.
 */
replcore_status replcore_dispatch_add_rule(struct replcore_dispatch *made,
                                           const char *message_type,
                                           const char *origin,
                                           const char *const *to,
                                           uint32_t to_count);

/*
 Removes all rules; leaves and hubs above stay.

 Asks of the caller:
 `made` is a dispatch.
 */
replcore_status replcore_dispatch_clear_rules(struct replcore_dispatch *made);

/*
 The leaf of this name is registered (`is_there` 1), which it may be already, or forgotten (0). FULL,
 END for one to be forgotten that is not there.

 Asks of the caller:
 `made` is a dispatch, `name` ends in a zero byte.
 */
replcore_status replcore_dispatch_set_leaf(struct replcore_dispatch *made,
                                           const char *name,
                                           uint32_t is_there);

/*
 There is a hub above that reads the own queue of this name. FULL.

 Asks of the caller:
 `made` is a dispatch, `queue` ends in a zero byte.
 */
replcore_status replcore_dispatch_add_upstream(struct replcore_dispatch *made, const char *queue);

/*
 Writes the queues that the record in `data` goes to, each once, to `out`; `*count` gets how many.
 `from` is one of REPLCORE_FROM_*, `peer` the id of the node that sent it, 0 for HERE. After SHORT
 `*count` says how many places `out` needs.

 Asks of the caller:
 `made` is a dispatch, `data` has `len` bytes, `out` has `cap` places, `count` is writable; they do
 not overlap.
 */
replcore_status replcore_dispatch_record(struct replcore_dispatch *made,
                                         uint32_t from,
                                         uint64_t peer,
                                         const uint8_t *data,
                                         size_t len,
                                         struct replcore_destination *out,
                                         size_t cap,
                                         size_t *count);

/*
 Before the first input: gives back what an earlier life ordered to be stored under
 (`key`, `node`) and not to be forgotten.

 Asks of the caller:
 `machine` is a machine, `data` has `len` bytes.
 */
replcore_status replcore_restore(struct replcore_machine *machine,
                                 uint32_t key,
                                 uint64_t node,
                                 const uint8_t *data,
                                 size_t len);

/*
 Time has passed.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_timeout(struct replcore_machine *machine, uint64_t now_us);

/*
 The link numbered `link` is open. `dialed` is the place that was to be dialled, or
 REPLCORE_NOT_DIALED; `transport` one of REPLCORE_TRANSPORT_*; `identity` the node that the other
 end has proved to be, 0 when it proved nothing.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_link_up(struct replcore_machine *machine,
                                        uint64_t now_us,
                                        uint32_t link,
                                        uint32_t dialed,
                                        uint32_t transport,
                                        uint64_t identity);

/*
 An open link is closed.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_link_down(struct replcore_machine *machine,
                                          uint64_t now_us,
                                          uint32_t link);

/*
 The dial numbered `dial` failed before there was a link.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_dial_failed(struct replcore_machine *machine,
                                            uint64_t now_us,
                                            uint32_t dial);

/*
 Bytes have come on a link: all that were not taken yet, on a datagram link one frame. `*taken`
 gets how many the machine took; keep the rest in front of what comes next, and offer it again
 when more comes, and after a drain with an order to take or skip bytes of the link or to resume
 it. What is left of a datagram is to be thrown away once its orders are done.

 Asks of the caller:
 `machine` is a machine, `data` has `len` bytes, `taken` is writable and does not overlap them.
 */
replcore_status replcore_handle_recv(struct replcore_machine *machine,
                                     uint64_t now_us,
                                     uint32_t link,
                                     const uint8_t *data,
                                     size_t len,
                                     size_t *taken);

/*
 The link can take `bytes` bytes more.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_writable(struct replcore_machine *machine,
                                         uint64_t now_us,
                                         uint32_t link,
                                         uint32_t bytes);

/*
 What was to be persisted is safe.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_persisted(struct replcore_machine *machine,
                                          uint64_t now_us,
                                          uint64_t token);

/*
 What was to be persisted could not be, for `reason`, one of REPLCORE_FAILURE_*.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_failed(struct replcore_machine *machine,
                                       uint64_t now_us,
                                       uint64_t token,
                                       uint32_t reason);

/*
 A frame of records was written: the next starts at `position` and `offset`; `bytes` of records
 were in it, and it took `wire_bytes` in all.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_sent(struct replcore_machine *machine,
                                     uint64_t now_us,
                                     uint32_t link,
                                     uint32_t stream,
                                     uint64_t position,
                                     uint32_t offset,
                                     uint32_t bytes,
                                     uint32_t wire_bytes);

/*
 The records to be sent are not there up to `next`, for `reason`, one of REPLCORE_SKIP_*.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_gone(struct replcore_machine *machine,
                                     uint64_t now_us,
                                     uint32_t link,
                                     uint32_t stream,
                                     uint64_t next,
                                     uint32_t reason);

/*
 Everything of an incoming stream before `position`, and `offset` bytes of the record there, is
 safe. `bytes` of records are in the orders that this completes.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_taken(struct replcore_machine *machine,
                                      uint64_t now_us,
                                      uint32_t link,
                                      uint32_t stream,
                                      uint64_t position,
                                      uint32_t offset,
                                      uint32_t bytes);

/*
 Records could not be kept, for `reason`, one of REPLCORE_FAILURE_*.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_refused(struct replcore_machine *machine,
                                        uint64_t now_us,
                                        uint32_t link,
                                        uint32_t stream,
                                        uint32_t reason);

/*
 An own queue that `link` asked for has grown: `next` entries were ever in it.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_appended(struct replcore_machine *machine,
                                         uint64_t now_us,
                                         uint32_t link,
                                         uint32_t stream,
                                         uint64_t next);

/*
 The answer to ASK_INBOUND: the last epoch in which something of that owner, queue and class was
 taken (the one asked for when nothing was), and how far.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_answer_inbound(struct replcore_machine *machine,
                                               uint64_t now_us,
                                               uint64_t token,
                                               uint32_t epoch,
                                               uint64_t position,
                                               uint32_t offset);

/*
 The answer to ASK_OUTBOUND: the epoch of the log, the first entry that is not acknowledged, how
 many entries were ever in the queue, and from which entry on (`sent`) nobody else can have one in
 this life of the log: those before were acknowledged, read from the queue since the log was opened,
 or answered as a place. A program that cannot tell gives `next` for it.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_answer_outbound(struct replcore_machine *machine,
                                                uint64_t now_us,
                                                uint64_t token,
                                                uint32_t epoch,
                                                uint64_t released,
                                                uint64_t next,
                                                uint64_t sent);

/*
 The answer to ASK_PLACE: the reader goes on at `position`.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_answer_place(struct replcore_machine *machine,
                                             uint64_t now_us,
                                             uint64_t token,
                                             uint64_t position);

/*
 The answer to ASK_SUBSCRIBE: the consumer exists now, and the client reads its queue.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_answer_subscribed(struct replcore_machine *machine,
                                                  uint64_t now_us,
                                                  uint64_t token);

/*
 The answer to ASK_SUBSCRIBE of a program without consumers, or without room for one more; and to
 ASK_OUTBOUND of one that has no room for the queue.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_handle_answer_denied(struct replcore_machine *machine,
                                              uint64_t now_us,
                                              uint64_t token);

/*
 The epoch of a fresh log, made from a random number.
 */
uint32_t replcore_epoch_first(uint64_t random);

/*
 The epoch after `epoch`, made from a random number. A log takes it at each start, and makes that
 durable before it posts anything or makes a machine, so that no number is given twice even by a
 log that was set back to an older copy.
 */
uint32_t replcore_epoch_next(uint32_t epoch, uint64_t random);

/*
 Where a reader goes on that was `position` far in the life `epoch`: at most at the end of that
 life, if it is among the `count` at `lives`, and else at most at `released`. A log may forget
 lives that ended with everything released.

 Asks of the caller:
 `lives` has `count` lives, `place` is writable.
 */
replcore_status replcore_place_after(const struct replcore_life *lives,
                                     size_t count,
                                     uint32_t epoch,
                                     uint64_t position,
                                     uint64_t released,
                                     uint64_t *place);

/*
 Bytes that a leaf needs, wherever they begin.
 */
size_t replcore_leaf_memory(void);

/*
 Makes a leaf in `memory`; `*machine` gets it. Its links are numbered 0, and it has one: tell it
 that the link is down before it is up again. It dials place 0.

 Asks of the caller:
 `memory` has `len` bytes that nothing else uses while the leaf is used; `config` and the texts
 in it are readable; `machine` is writable and not inside `memory`.
 */
replcore_status replcore_leaf_init(void *memory,
                                   size_t len,
                                   const struct replcore_leaf_config *config,
                                   struct replcore_machine **machine);

/*
 Has the leaf close its link with a good-bye and dial no more.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_leaf_stop(struct replcore_machine *machine, uint64_t now_us);

/*
 Refuses an entry that came on an incoming stream of a consumer; it still has to be reported as
 taken. REFUSED when there is no such stream, or an earlier refusal is not out yet.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_leaf_reject(struct replcore_machine *machine,
                                     uint64_t now_us,
                                     uint32_t stream,
                                     uint64_t position);

/*
 Whether the leaf is registered at its hub: 1, or 0; 0 for what is not a leaf.

 Asks of the caller:
 `machine` is a machine.
 */
int32_t replcore_leaf_connected(struct replcore_machine *machine);

/*
 Whether everything that the program has reported of the own queue is acknowledged: 1, or 0; 0
 for what is not a leaf, or is not connected.

 Asks of the caller:
 `machine` is a machine.
 */
int32_t replcore_leaf_drained(struct replcore_machine *machine);

/*
 Round trip of the last ping, in microseconds; 0 when not known, and for what is not a leaf.

 Asks of the caller:
 `machine` is a machine.
 */
uint32_t replcore_leaf_round_trip_us(struct replcore_machine *machine);

/*
 Writes the name of the node at the other end to `out`, with a zero byte behind it; 64 bytes are
 always enough. An empty text while it is not known.

 Asks of the caller:
 `machine` is a machine, `out` has `cap` bytes.
 */
replcore_status replcore_leaf_peer(struct replcore_machine *machine, char *out, size_t cap);

/*
 What the leaf's links have counted since the start.

 Asks of the caller:
 `machine` is a machine, `stats` is writable.
 */
replcore_status replcore_leaf_stats(struct replcore_machine *machine,
                                    struct replcore_link_stats *stats);

/*
 Writes the header of a batch whose entries are the `entries_len` bytes after the first 32 of
 `data`. Write all of it with one call, and sync, before anything depends on it.

 Asks of the caller:
 `batch` is readable; `data` has `len` bytes and does not overlap it.
 */
replcore_status replcore_batch_encode(const struct replcore_batch *batch,
                                      uint8_t *data,
                                      size_t len);

/*
 Checks the batch at the start of `data`, which must belong to `segment`. Its entries follow its
 header. END where nothing was written, TORN where it was not written whole: a log that ends so
 goes on at this place.

 Asks of the caller:
 `data` has `len` bytes, `batch` is writable and does not overlap them.
 */
replcore_status replcore_batch_read(const uint8_t *data,
                                    size_t len,
                                    uint64_t segment,
                                    struct replcore_batch *batch);

/*
 Says kind and length of the entry at the start of `data`, its header included; INCOMPLETE when
 not all of it is there, and LENGTH when it is longer than `entry_bytes_max`. Its checksum is not
 looked at: that of its batch, or `replcore_record_check`, is for that.

 Asks of the caller:
 `data` has `len` bytes, `kind` and `entry_len` are writable and do not overlap them.
 */
replcore_status replcore_entry_read(const uint8_t *data,
                                    size_t len,
                                    uint32_t entry_bytes_max,
                                    uint32_t *kind,
                                    size_t *entry_len);

/*
 Writes a note, an entry of `kind` 2 to 15 with `payload` from its byte 12 on, to `out`;
 `*written` gets its length.

 Asks of the caller:
 `payload` has `len` bytes, `out` has `cap`, `written` is writable; they do not overlap.
 */
replcore_status replcore_entry_encode(uint32_t kind,
                                      const uint8_t *payload,
                                      size_t len,
                                      uint8_t *out,
                                      size_t cap,
                                      size_t *written);

/*
 Writes the head of a frame with `len` bytes of records, for the driver to send before them, to
 the first 40 bytes of `out`.

 Asks of the caller:
 `records` is readable; `out` has `cap` bytes and does not overlap it.
 */
replcore_status replcore_records_head(const struct replcore_records *records,
                                      uint32_t len,
                                      uint8_t *out,
                                      size_t cap);

/*
 CRC-32C (Castagnoli) of the bytes; 0 for NULL.

 Asks of the caller:
 `data` has `len` bytes.
 */
uint32_t replcore_crc32c(const uint8_t *data, size_t len);

/*
 Bytes that a member of this configuration needs, wherever they begin; 0 for one that
 replcore_member_init refuses.

 Asks of the caller:
 `config` and the texts in it are readable.
 */
size_t replcore_member_memory(const struct replcore_member_config *config);

/*
 Makes a member in `memory`; `*machine` gets it. Then its peers are added with
 replcore_member_add_peer, and what an earlier life has stored is given back with
 replcore_restore; then it takes its first input.

 What is stored under REPLCORE_KEY_BALLOT and REPLCORE_KEY_MEMBERS has to survive the loss of
 power before replcore_handle_persisted is called.

 Asks of the caller:
 `memory` has `len` bytes that nothing else uses while the member is used; `config` and the texts
 in it are readable; `machine` is writable and not inside `memory`.
 */
replcore_status replcore_member_init(void *memory,
                                     size_t len,
                                     const struct replcore_member_config *config,
                                     struct replcore_machine **machine);

/*
 Adds a peer that the program's own configuration names, before the first input; later it is a
 peer that was made known. `address` may be NULL: then only the peer dials. `metadata` counts until
 the peer itself has said something; NULL when the configuration says nothing. NAME for the own
 name or one that is there already, FULL, LENGTH for more than 256 bytes of metadata.

 Asks of the caller:
 `machine` is a machine, the texts end in a zero byte, `metadata` is NULL or has `len` bytes.
 */
replcore_status replcore_member_add_peer(struct replcore_machine *machine,
                                         const char *name,
                                         const char *address,
                                         const uint8_t *metadata,
                                         size_t len,
                                         uint32_t is_voter);

/*
 Says of this node what all others can read: up to 256 bytes, in place of what it said before.

 Asks of the caller:
 `machine` is a machine, `data` has `len` bytes.
 */
replcore_status replcore_member_set_metadata(struct replcore_machine *machine,
                                             uint64_t now_us,
                                             const uint8_t *data,
                                             size_t len);

/*
 Leads no more and hands over to another. NOT_LEADING when this node does not lead.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_member_resign(struct replcore_machine *machine, uint64_t now_us);

/*
 Hands over if it leads, closes every link with a good-bye and dials no more.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_member_stop(struct replcore_machine *machine, uint64_t now_us);

/*
 Asks to become a voter (`is_voter` 1) or a learner (0). The leader sees to it once it hears of it.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_member_join(struct replcore_machine *machine,
                                     uint64_t now_us,
                                     uint32_t is_voter);

/*
 Asks to be no member any more; the event REMOVED tells when. REFUSED for the only voter.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_member_leave(struct replcore_machine *machine, uint64_t now_us);

/*
 As leader: makes the node with this id what `membership` says, one of REPLCORE_MEMBERSHIP_*.
 NOT_LEADING, BUSY, REFUSED when no such node is connected.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_member_change(struct replcore_machine *machine,
                                       uint64_t now_us,
                                       uint64_t node,
                                       uint32_t membership);

/*
 Says how fresh this node's data is: it gets votes only from those that are not fresher. `term` is
 that in which the last entry was made, `position` the number of entries.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_member_set_progress(struct replcore_machine *machine,
                                             uint64_t now_us,
                                             uint64_t term,
                                             uint64_t position);

/*
 What the member does in the election, one of REPLCORE_ROLE_NONE to REPLCORE_ROLE_LEADER; NONE for
 what is not a member.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_role replcore_member_role(struct replcore_machine *machine);

/*
 The term that this node is in; 0 without an election.

 Asks of the caller:
 `machine` is a machine.
 */
uint64_t replcore_member_term(struct replcore_machine *machine);

/*
 Until when this node may say that it leads, in microseconds; 0 when it may not, REPLCORE_NEVER for
 the only voter. Read it after every input and command, before the outputs are done, and keep it
 where whoever asks compares it with the clock, anew each time: the answer is yes while the clock is
 before it.

 Asks of the caller:
 `machine` is a machine.
 */
uint64_t replcore_member_leader_until(struct replcore_machine *machine);

/*
 Who leads, this node included, as far as is known here. END while nobody is known to.

 Asks of the caller:
 `machine` is a machine, `leader` is writable.
 */
replcore_status replcore_member_leader(struct replcore_machine *machine,
                                       struct replcore_leader *leader);

/*
 What is known of a node by its id, this node included. END when nothing is.

 Asks of the caller:
 `machine` is a machine, `peer` is writable.
 */
replcore_status replcore_member_peer(struct replcore_machine *machine,
                                     uint64_t node,
                                     struct replcore_peer *peer);

/*
 What is known of the other node of this `index` from 0. END when there are fewer.

 Asks of the caller:
 `machine` is a machine, `peer` is writable.
 */
replcore_status replcore_member_peer_at(struct replcore_machine *machine,
                                        uint32_t index,
                                        struct replcore_peer *peer);

/*
 Where the place of an order DIAL is: writes its address with a zero byte behind it to `out`; 64
 bytes are always enough. `*node` gets whom is to be found there. END when the order is out of
 date.

 Asks of the caller:
 `machine` is a machine, `out` has `cap` bytes, `node` is writable.
 */
replcore_status replcore_member_dial_target(struct replcore_machine *machine,
                                            uint32_t dial,
                                            char *out,
                                            size_t cap,
                                            uint64_t *node);

/*
 Who is at the other end of a link: writes its name with a zero byte behind it to `out`; 64 bytes are
 always enough. `*is_member` gets 1 for a node that takes part in clusters, and 0 for a program. END before
 it has greeted, and for a link that is not open.

 Asks of the caller:
 `machine` is a machine, `out` has `cap` bytes, `is_member` is writable.
 */
replcore_status replcore_member_link_peer(struct replcore_machine *machine,
                                          uint32_t link,
                                          char *out,
                                          size_t cap,
                                          uint32_t *is_member);

/*
 Whether a majority has stored the present configuration, so that the leader may change it again: 1, or
 0; 0 for what is not a member.

 Asks of the caller:
 `machine` is a machine.
 */
int32_t replcore_member_settled(struct replcore_machine *machine);

/*
 What the member has counted since its start.

 Asks of the caller:
 `machine` is a machine, `stats` is writable.
 */
replcore_status replcore_member_stats(struct replcore_machine *machine,
                                      struct replcore_member_counters *stats);

/*
 Bytes that a node of this configuration needs, wherever they begin; 0 for one that
 replcore_node_init refuses.

 Asks of the caller:
 `config` and what it points to are readable.
 */
size_t replcore_node_memory(const struct replcore_node_config *config);

/*
 Makes a node in `memory`; `*machine` gets it. Then what an earlier life has stored is given back with
 replcore_restore, and it takes its first input.

 As a hub it keeps the table of leaves, each under its lease, and sends each what the queues of its
 name hold. Which queues a record goes to is for the program to say: replcore_dispatch_record does
 as the daemon. What is stored under REPLCORE_KEY_REGISTRATION may be lost: then the hub does not
 know whom to expect after a restart. So may what is stored under REPLCORE_KEY_TERM: then a gateway
 takes whichever hub above it that it finds first, also one whose term is over.

 Asks of the caller:
 `memory` has `len` bytes that nothing else uses while the node is used; `config` and what it points
 to are readable; `machine` is writable and not inside `memory`.
 */
replcore_status replcore_node_init(void *memory,
                                   size_t len,
                                   const struct replcore_node_config *config,
                                   struct replcore_machine **machine);

/*
 Has the node close every link with a good-bye, dial no more and take no link.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_node_stop(struct replcore_machine *machine, uint64_t now_us);

/*
 Forgets the leaf `leaf`, an id, that is gone for good; its link is closed if it has one. END when no
 such leaf is registered, BUSY when the last such command was not drained yet.

 Asks of the caller:
 `machine` is a machine.
 */
replcore_status replcore_node_forget(struct replcore_machine *machine,
                                     uint64_t now_us,
                                     uint64_t leaf);

/*
 How many leaves are in the table, those whose lease has ended included; 0 for what is not a node.

 Asks of the caller:
 `machine` is a machine.
 */
uint32_t replcore_node_leases(struct replcore_machine *machine);

/*
 What is known of the leaf of this id. END when it is not in the table.

 Asks of the caller:
 `machine` is a machine, `lease` is writable.
 */
replcore_status replcore_node_lease(struct replcore_machine *machine,
                                    uint64_t leaf,
                                    struct replcore_lease *lease);

/*
 The leaves in turn, in no order: `*place` is 0 at first, and gets where the next call goes on. END
 behind the last. One that registers or is forgotten between two calls may be told twice or not.

 Asks of the caller:
 `machine` is a machine, `place` and `lease` are writable and do not overlap.
 */
replcore_status replcore_node_lease_next(struct replcore_machine *machine,
                                         uint32_t *place,
                                         struct replcore_lease *lease);

/*
 Who is at the other end of a link. END while that is not known, and for a link that is not open.

 Asks of the caller:
 `machine` is a machine, `peer` is writable.
 */
replcore_status replcore_node_peer(struct replcore_machine *machine,
                                   uint32_t link,
                                   struct replcore_link_peer *peer);

/*
 What is known of the place numbered `dial`. END when there are fewer.

 Asks of the caller:
 `machine` is a machine, `state` is writable.
 */
replcore_status replcore_node_dial(struct replcore_machine *machine,
                                   uint32_t dial,
                                   struct replcore_dial_state *state);

/*
 What the node has counted since its start. Passes over all links.

 Asks of the caller:
 `machine` is a machine, `stats` is writable.
 */
replcore_status replcore_node_stats(struct replcore_machine *machine,
                                    struct replcore_node_counters *stats);

/*
 Reads what the buffer holds with an order ASK_SUBSCRIBE: its first `len` bytes. MALFORMED when that
 is something else.

 Asks of the caller:
 `data` has `len` bytes, `subscribe` is writable and does not overlap them.
 */
replcore_status replcore_subscribe_read(const uint8_t *data,
                                        size_t len,
                                        struct replcore_subscribe *subscribe);

/*
 Bytes that one end of a line needs, wherever they begin.
 */
size_t replcore_noise_memory(void);

/*
 Makes one end of a line in `memory`, without a link; `*made` gets it. `end` is REPLCORE_NOISE_BEGINS or
 REPLCORE_NOISE_ANSWERS, else VALUE.

 Asks of the caller:
 `memory` has `len` bytes that nothing else uses while the line is used; `made` is writable and
 not inside `memory`.
 */
replcore_status replcore_noise_init(void *memory,
                                    size_t len,
                                    uint32_t end,
                                    struct replcore_noise **made);

/*
 Writes the public half of the pair with this private half to `public_key`. Any 32 bytes that nobody can
 guess are a private half.

 Asks of the caller:
 `private_key` has 32 bytes, `public_key` has room for 32; they do not overlap.
 */
replcore_status replcore_noise_public(const uint8_t *private_key,
                                      uint8_t *public_key);

/*
 BEGINS: forgets the link, if there is one, and writes the start packet of a new one to `out`; `*written`
 gets its length. `random` are 32 bytes as said above, `cap` is REPLCORE_NOISE_HANDSHAKE_BYTES_MAX at least, else
 SHORT. VALUE when `identity` has not the keys of one way, and of one alone.

 Asks of the caller:
 `line` is one end of a line; `identity` and `random` are readable, `out` has `cap` bytes, `written` is
 writable; they do not overlap.
 */
replcore_status replcore_noise_start(struct replcore_noise *line,
                                     const struct replcore_noise_identity *identity,
                                     const uint8_t *random,
                                     uint8_t *out,
                                     size_t cap,
                                     size_t *written);

/*
 Takes a packet of `len` bytes, in which a frame is made readable; `*taken` says what came of it. What is
 in a packet that was refused is of no use.

 Asks of the caller:
 `line` is one end of a line, `packet` has `len` bytes, `taken` is writable; they do not overlap.
 */
replcore_status replcore_noise_take(struct replcore_noise *line,
                                    uint8_t *packet,
                                    size_t len,
                                    struct replcore_noise_taken *taken);

/*
 ANSWERS: makes the answer to the start packet that was just taken, of one who has given a name: writes it
 to `out`; `*written` gets its length. Send it after replcore_noise_answered. `shared_key` is the key of
 that name, `random` are 32 bytes as said above, `cap` is REPLCORE_NOISE_HANDSHAKE_BYTES_MAX at least, else
 SHORT. FORGED: the other end has another key. MALFORMED: the packet is none of this kind.

 Asks of the caller:
 `line` is one end of a line, `start` has `len` bytes, `shared_key` and `random` have 32, `out` has `cap`,
 `written` is writable; they do not overlap.
 */
replcore_status replcore_noise_answer_shared(struct replcore_noise *line,
                                             const uint8_t *start,
                                             size_t len,
                                             const uint8_t *shared_key,
                                             const uint8_t *random,
                                             uint8_t *out,
                                             size_t cap,
                                             size_t *written);

/*
 ANSWERS: the same of one who shows a public key, which `shown` gets: 32 bytes. Send the answer after
 replcore_noise_answered, when it is a key that is known here, and not otherwise. `own_key` is the private
 half of the own pair. FORGED: the other end knows another public key of this one.

 Asks of the caller:
 `line` is one end of a line, `start` has `len` bytes, `own_key` and `random` have 32, `out` has `cap`,
 `written` and 32 bytes of `shown` are writable; they do not overlap.
 */
replcore_status replcore_noise_answer_pinned(struct replcore_noise *line,
                                             const uint8_t *start,
                                             size_t len,
                                             const uint8_t *own_key,
                                             const uint8_t *random,
                                             uint8_t *out,
                                             size_t cap,
                                             size_t *written,
                                             uint8_t *shown);

/*
 ANSWERS: the answer that was made last counts: its link is up once the other end is heard of. REFUSED
 when none was made since.

 Asks of the caller:
 `line` is one end of a line.
 */
replcore_status replcore_noise_answered(struct replcore_noise *line);

/*
 ANSWERS: nobody here knows the key of a start packet: counts it as refused, and forgets the answer, if one
 was made.

 Asks of the caller:
 `line` is one end of a line.
 */
replcore_status replcore_noise_refuse(struct replcore_noise *line);

/*
 Makes a packet of the frame of `frame_len` bytes that stands in `packet` behind REPLCORE_NOISE_HEAD_BYTES;
 `*written` gets its length, REPLCORE_NOISE_OVERHEAD_BYTES more than the frame's. SHORT when `cap` is less. REFUSED,
 and the frame stays readable, when there is no link, or when it has sent 2^32 packets: end it then.

 Asks of the caller:
 `line` is one end of a line, `packet` has `cap` bytes, `written` is writable; they do not overlap.
 */
replcore_status replcore_noise_seal(struct replcore_noise *line,
                                    uint8_t *packet,
                                    size_t cap,
                                    size_t frame_len,
                                    size_t *written);

/*
 Packets that were refused and counted since the line was made; 0 for what is none.

 Asks of the caller:
 `line` is one end of a line.
 */
uint32_t replcore_noise_refused(struct replcore_noise *line);

/*
 Forgets the link and clears its keys. The end of ANSWERS counts refused packets from 0 again.

 Asks of the caller:
 `line` is one end of a line.
 */
replcore_status replcore_noise_forget(struct replcore_noise *line);

/*
 The next thing to do; IDLE when there is none. The bytes that go with it are in `buf` until the
 next call. 512 bytes are always enough.

 Asks of the caller:
 `machine` is a machine, `buf` has `cap` bytes, `output` is writable; they do not overlap.
 */
replcore_status replcore_poll(struct replcore_machine *machine,
                              uint8_t *buf,
                              size_t cap,
                              struct replcore_output *output);

/*
 The id of the node or queue of this name.

 Asks of the caller:
 `name` ends in a zero byte, `id` is writable.
 */
replcore_status replcore_name_id(const char *name, uint64_t *id);

/*
 The stamp after `last`, at the wall time `wall_ms`: greater than `last` even when the clock of the
 wall was set back. Keep the greatest that was given out or seen in a record.
 */
uint64_t replcore_stamp_next(uint64_t last, uint64_t wall_ms);

/*
 Writes the message as a record with the identity `id` and the time `time_wall_ms` (0 when not
 known) to `out`; `*written` gets its length. After SHORT `*written` says how many bytes `out`
 needs.

 Asks of the caller:
 `message` and what it points to are as its comments say, `id` is readable, `out` has `cap`
 bytes, `written` is writable; they do not overlap.
 */
replcore_status replcore_record_encode(const struct replcore_message *message,
                                       const struct replcore_record_id *id,
                                       uint64_t time_wall_ms,
                                       uint8_t *out,
                                       size_t cap,
                                       size_t *written);

/*
 Says where the queue that a record asks for stands, the one of this `index` from 0. END when
 it asks for fewer.

 Asks of the caller:
 `data` has `len` bytes, `part` is writable and does not overlap them.
 */
replcore_status replcore_record_to(const uint8_t *data,
                                   size_t len,
                                   uint32_t index,
                                   struct replcore_part *part);

/*
 Says where the header of this `index` from 0 stands in a record. END when it has fewer.

 Asks of the caller:
 `data` has `len` bytes, `part` is writable and does not overlap them.
 */
replcore_status replcore_record_header(const uint8_t *data,
                                       size_t len,
                                       uint32_t index,
                                       struct replcore_part *part);

/*
 Checks form and checksum of the record that is all of `data` and says what is in it.

 Asks of the caller:
 `data` has `len` bytes, `record` is writable and does not overlap them.
 */
replcore_status replcore_record_check(const uint8_t *data,
                                      size_t len,
                                      struct replcore_record *record);

/*
 Gives the record in `data` a new identity and makes its checksum anew.

 Asks of the caller:
 `data` has `len` bytes, `id` is readable and does not overlap them.
 */
replcore_status replcore_record_stamp(uint8_t *data,
                                      size_t len,
                                      const struct replcore_record_id *id);

/*
 What `status` means, as one line of text; never NULL.
 */
const char *replcore_status_text(int32_t status);

/*
 Bytes that a window with room for `entries_max` outstanding entries needs, wherever they begin: 16
 for each, and a few.
 */
size_t replcore_window_memory(uint32_t entries_max);

/*
 Makes a window in `memory`; `*made` gets it. It starts at `released`, the first entry that was not
 settled in an earlier life. An entry that is not settled within `ack_wait_ms` milliseconds is
 delivered again, `deliveries_max` times in all. VALUE when one of the three limits is 0.

 Asks of the caller:
 `memory` has `len` bytes that nothing else uses while the window is used; `made` is writable and
 not inside `memory`.
 */
replcore_status replcore_window_init(void *memory,
                                     size_t len,
                                     uint32_t entries_max,
                                     uint32_t ack_wait_ms,
                                     uint32_t deliveries_max,
                                     uint64_t released,
                                     struct replcore_window **made);

/*
 What comes next, of a queue that has ever held `end` entries; it counts as delivered. Call it until
 it answers NOTHING: when the queue has grown, something was settled, or `wake_us` is past.

 Asks of the caller:
 `made` is a window, `next` is writable.
 */
replcore_status replcore_window_take(struct replcore_window *made,
                                     uint64_t now_us,
                                     uint64_t end,
                                     struct replcore_next *next);

/*
 The consumer is done with the entry at `position`, one way or the other. END, and nothing changes,
 when it is not outstanding, because it was settled before.

 Asks of the caller:
 `made` is a window.
 */
replcore_status replcore_window_settle(struct replcore_window *made, uint64_t position);

/*
 Whether the entry at `position` is delivered and not settled: 1, or 0; 0 for what is not a window.

 Asks of the caller:
 `made` is a window.
 */
int32_t replcore_window_is_outstanding(struct replcore_window *made, uint64_t position);

/*
 The queue holds nothing before `first` any more: what was outstanding there counts as settled.

 Asks of the caller:
 `made` is a window.
 */
replcore_status replcore_window_gone(struct replcore_window *made, uint64_t first);

/*
 The consumer has gone away with what it had: all of that is due at once.

 Asks of the caller:
 `made` is a window.
 */
replcore_status replcore_window_give_back(struct replcore_window *made, uint64_t now_us);

/*
 Everything before is settled: the queue may be released up to here. 0 for what is not a window.

 Asks of the caller:
 `made` is a window.
 */
uint64_t replcore_window_released(struct replcore_window *made);

/*
 How many entries are delivered and not settled. 0 for what is not a window.

 Asks of the caller:
 `made` is a window.
 */
uint32_t replcore_window_outstanding(struct replcore_window *made);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* REPLCORE_H */
