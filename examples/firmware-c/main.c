/* A leaf as firmware in C, over libreplcore.a and nothing else: it posts readings, carries out commands,
 * and keeps both in a log on flash, so that no reading is lost or doubled and no command is carried out
 * twice, whenever the power or the line fails. No heap. examples/firmware is the same in Rust.
 *
 * The link is a serial line with COBS frames, sealed when noise.c is linked. Commands are messages that the hub has for this leaf; their
 * body is text: `post N` for N more readings, `reset N` to lose the power when the Nth next word is
 * written to flash, `stack` to say how much stack was used. A reading's body is its number, how many
 * commands were carried out before it, and a digest of them in order. */

#include <stdint.h>
#include <string.h>

#include "board.h"
#include "flash.h"
#include "line.h"
#include "log.h"
#include "replcore.h"

enum {
  FRAME_MAX = 512,                      /* the least that the protocol allows */
  SEALED_MAX = FRAME_MAX + LINE_OVERHEAD_MAX,
  PACKET_MAX = SEALED_MAX + 16,         /* replcore_cobs_encoded_max(SEALED_MAX), and one byte */
  COMMAND_MAX = 192,                    /* longest record of a command that is carried out */
  LEAF_BYTES = 3584,                    /* replcore_leaf_memory() at least */
  READ_MAX = 1024,                      /* bytes of the line in one turn */
  ENTRY_HEAD_BYTES = 12, ENTRY_LENGTH_AT = 4, CLASS = 2
};

static const char NAME[] = "mcu-1";
static uint64_t own_id;

static uint8_t leaf_memory[LEAF_BYTES] __attribute__((aligned(8)));
static replcore_machine *leaf;
static replcore_cobs_decoder decoder;
static uint8_t came[SEALED_MAX + 4];    /* the packet that arrives; with its checksum */
static const uint8_t *frame;            /* that is in it */
static size_t frame_len, frame_at;      /* and how much of it is done with */
static uint8_t out[FRAME_MAX], packet[PACKET_MAX];
static int connected;
static uint64_t answer_due;             /* when a link that was begun has failed; 0 when none was */
static uint32_t dial;
static int line_begun;                  /* what noise or a reset had begun on the line is ended */
static int watching = -1;               /* the stream that sends the readings */

/* The command that has begun to arrive; bytes beyond the memory are let go by. */
static uint8_t part[COMMAND_MAX];
static uint32_t part_len, part_stream;

static struct state staged;             /* what the state will be when the commands that came are durable */
static int fault_wanted;
static uint32_t fault_steps;

/* ---- Text ---- */

static char *put_text(char *to, const char *text)
{
  while (*text != 0) *to++ = *text++;
  return to;
}

static char *put_number(char *to, uint64_t number, uint32_t base, int digits_min)
{
  char digits[20];
  int count = 0;
  for (; number > 0 || count < digits_min; number /= base) digits[count++] = "0123456789abcdef"[number % base];
  while (count > 0) *to++ = digits[--count];
  return to;
}

/* The number behind a word at the start of a text; 0 when that is not what the text is. */
static int command_is(const uint8_t *text, size_t len, const char *word, uint32_t *number)
{
  size_t at = strlen(word);
  if (len <= at || memcmp(text, word, at) != 0) return 0;
  uint64_t value = 0;
  for (; at < len; at++) {
    if (text[at] < '0' || text[at] > '9') return 0;
    value = value * 10 + (text[at] - '0');
    if (value > UINT32_MAX) return 0;
  }
  *number = (uint32_t)value;
  return 1;
}

/* ---- What is said ---- */

static void say_stack(void)
{
  char line[64];
  *put_text(put_number(put_text(line, "stack: "), board_stack_bytes(), 10, 1), " bytes") = 0;
  board_say(line);
}

static void say_start(void)
{
  char line[96], *end = put_number(put_text(line, "start: "), log_next - state.released, 10, 1);
  end = put_number(put_text(end, " readings wait, "), board_stack_bytes(), 10, 1);
  *put_text(end, " bytes of stack") = 0;
  board_say(line);
}

void check(const char *what, int32_t status)
{
  char line[160];
  if (status == REPLCORE_STATUS_OK) return;
  *put_text(put_text(put_text(line, what), ": "), replcore_status_text(status)) = 0;
  board_fail(line);
}

/* The library calls it when an invariant is broken. */
void replcore_panic(void) { board_fail("replcore: a broken invariant"); }

/* ---- Outgoing ---- */

/* Posts the next reading, if one is wanted and there is room for it. Whether one was posted. */
static int post_reading(void)
{
  if (log_next >= state.target) return 0;
  char body[64], *end = body;
  end = put_text(put_number(end, log_next + 1, 10, 1), " ");
  end = put_text(put_number(end, state.commands, 10, 1), " ");
  end = put_number(end, state.digest, 16, 8);
  replcore_message m;
  memset(&m, 0, sizeof m);
  m.struct_size = sizeof m, m.message_type = "reading", m.origin_name = NAME;
  m.body = (const uint8_t *)body, m.body_len = (size_t)(end - body);
  replcore_record_id id = { own_id, log_next - state.base + 1, state.epoch, CLASS };
  uint8_t record[RECORD_BYTES_MAX];
  size_t len;
  check("reading", replcore_record_encode(&m, &id, 0, record, sizeof record, &len));
  if (!log_append(record, len)) return 0;
  if (watching >= 0)
    check("appended", replcore_handle_appended(leaf, board_now_us(), 0, (uint32_t)watching, log_next));
  return 1;
}

static void link_down(void)
{
  connected = 0, watching = -1, part_len = 0, frame_len = frame_at = 0;
  line_end();
  check("link down", replcore_handle_link_down(leaf, board_now_us(), 0));
}

static void write_packet(const uint8_t *bytes, size_t len)
{
  size_t written, lead = line_begun ? 0 : 1;
  packet[0] = 0;
  check("packet", replcore_cobs_encode(bytes, len, packet + lead, sizeof packet - lead, &written));
  board_send(packet, lead + written);
  line_begun = 1;
}

/* Writes a frame to the line and gives its credit back: what is written is out. */
static void send(const uint8_t *bytes, size_t len)
{
  size_t sealed_len;
  if (!connected) return;
  const uint8_t *sealed = line_seal(bytes, len, &sealed_len);
  if (sealed == NULL) {
    link_down();
    return;
  }
  write_packet(sealed, sealed_len);
  check("writable", replcore_handle_writable(leaf, board_now_us(), 0, (uint32_t)len));
}

static void send_records(const replcore_output *o)
{
  replcore_records head = { o->position, o->offset, 0, 0, 0, o->round, o->stream };
  uint8_t *body = out + REPLCORE_RECORDS_HEAD_BYTES;
  uint32_t len = 0, room = FRAME_MAX - REPLCORE_RECORDS_HEAD_BYTES, offset = o->offset;
  uint64_t position = o->position;
  size_t bytes;
  const uint8_t *record;
  if (room > o->bytes_max) room = o->bytes_max;
  while (len < room && (record = log_record(position, &bytes)) != NULL) {
    uint32_t rest = (uint32_t)bytes - offset, count = rest < room - len ? rest : room - len;
    if (count < rest && head.completed > 0) break;
    memcpy(body + len, record + offset, count);
    len += count;
    if (count < rest) {
      head.tail_bytes = count, offset += count;
      break;
    }
    head.completed++, position++, offset = 0;
  }
  if (len == 0) {
    check("gone", replcore_handle_gone(leaf, board_now_us(), 0, o->stream, state.released, REPLCORE_SKIP_LOST));
    return;
  }
  check("head", replcore_records_head(&head, len, out, sizeof out));
  len += REPLCORE_RECORDS_HEAD_BYTES;
  check("sent", replcore_handle_sent(leaf, board_now_us(), 0, o->stream, position, offset,
                                     len - REPLCORE_RECORDS_HEAD_BYTES, len));
  send(out, len);
}

/* ---- Incoming ---- */

/* Does what a command says, as far as that is memory. */
static int carry_out(const uint8_t *bytes, size_t len)
{
  replcore_record r;
  uint32_t number;
  if (replcore_record_check(bytes, len, &r) != REPLCORE_STATUS_OK) return 0;
  const uint8_t *text = bytes + r.body_at;
  uint32_t digests[2] = { staged.digest, replcore_crc32c(text, r.body_len) };
  staged.commands++;
  staged.digest = replcore_crc32c((const uint8_t *)digests, sizeof digests);
  if (command_is(text, r.body_len, "post ", &number))
    staged.target = number < UINT32_MAX - staged.target ? staged.target + number : UINT32_MAX;
  else if (command_is(text, r.body_len, "reset ", &number)) fault_wanted = 1, fault_steps = number;
  else if (r.body_len == 5 && memcmp(text, "stack", 5) == 0) say_stack();
  return 1;
}

/* Takes bytes up to the end of the record that has begun to arrive. How many; 0 when they are no record. */
static size_t take_part(const uint8_t *bytes, size_t len)
{
  uint32_t wanted = ENTRY_HEAD_BYTES;
  if (part_len >= ENTRY_HEAD_BYTES) memcpy(&wanted, part + ENTRY_LENGTH_AT, sizeof wanted);
  if (wanted < ENTRY_HEAD_BYTES || wanted < part_len) return 0;
  uint32_t count = len < wanted - part_len ? (uint32_t)len : wanted - part_len;
  for (uint32_t i = 0; i < count && part_len + i < COMMAND_MAX; i++) part[part_len + i] = bytes[i];
  part_len += count;
  return count;
}

/* Whether the record that has begun to arrive is whole. */
static int part_is_whole(void)
{
  uint32_t wanted;
  memcpy(&wanted, part + ENTRY_LENGTH_AT, sizeof wanted);
  return part_len >= ENTRY_HEAD_BYTES && part_len == wanted;
}

/* Takes the records in an order: all or, with the answer 0, none. */
static int take_parts(const replcore_output *o, const uint8_t *bytes)
{
  if (o->offset == 0) part_len = 0, part_stream = o->stream;
  if (o->raw_bytes != 0 || part_stream != o->stream || part_len != o->offset) return 0;
  uint32_t completed = 0;
  for (size_t at = 0, count; at < o->len; at += count) {
    count = take_part(bytes + at, o->len - at);
    if (count == 0) return 0;
    if (!part_is_whole()) continue;
    if (part_len > COMMAND_MAX) board_say("a command is too long");
    else if (!carry_out(part, part_len)) return 0;
    part_len = 0, completed++;
  }
  return completed == o->completed && part_len == o->tail_bytes + (completed == 0 ? o->offset : 0);
}

/* Makes durable, as one, what the commands did and that the stream was taken up to `position`. */
static void commit(const replcore_output *o, uint64_t position)
{
  struct place p = { o->node, o->queue, position, o->epoch, o->message_class };
  log_set_place(&staged, &p);
  log_store(&staged);
  if (fault_wanted) flash_plan_fault(fault_steps);
  fault_wanted = 0;
}

static void take_records(const replcore_output *o)
{
  const uint8_t *bytes = frame + frame_at;
  int is_there = frame_len - frame_at >= o->len; /* what is not in its frame never comes */
  uint64_t next = o->position + o->completed;
  staged = state;
  if (!is_there || !take_parts(o, bytes)) {
    part_len = 0, fault_wanted = 0;
    check("refused", replcore_handle_refused(leaf, board_now_us(), 0, o->stream, REPLCORE_FAILURE_CORRUPT));
    return;
  }
  frame_at += o->len;
  if (o->completed > 0) commit(o, next);
  check("taken", replcore_handle_taken(leaf, board_now_us(), 0, o->stream, next, part_len, o->len));
}

/* The stream goes on elsewhere: behind what will not come, or where its owner has begun anew. */
static void go_on(const replcore_output *o, uint64_t position)
{
  part_len = 0;
  staged = state;
  commit(o, position);
  check("taken", replcore_handle_taken(leaf, board_now_us(), 0, o->stream, position, 0, 0));
}

/* ---- The link and the loop ---- */

/* The line is always there: what is called a link is only what both ends know of each other. */
static void link_up(void)
{
  uint64_t now = board_now_us();
  connected = 1, answer_due = 0;
  check("link up", replcore_handle_link_up(leaf, now, 0, dial, REPLCORE_TRANSPORT_DATAGRAM, line_peer()));
  check("writable", replcore_handle_writable(leaf, now, 0, FRAME_MAX));
}

static void begin_link(void)
{
  size_t len;
  const uint8_t *start = line_begin(&len);
  line_begun = 0;
  if (len == 0) {
    link_up();
    return;
  }
  write_packet(start, len);
  answer_due = board_now_us() + LINE_ANSWER_US;
}

static void give_up_on_answer(void)
{
  if (answer_due == 0 || board_now_us() < answer_due) return;
  answer_due = 0;
  line_end();
  check("dial failed", replcore_handle_dial_failed(leaf, board_now_us(), dial));
}

static void answer(const replcore_output *o)
{
  int own = o->message_class == CLASS; /* all is posted in one class; the others are empty */
  uint64_t now = board_now_us(), released = own ? state.released : 0, next = own ? log_next : 0;
  if (o->kind == REPLCORE_OUTPUT_KIND_ASK_INBOUND) {
    const struct place *p = log_place(&state, o->node, o->queue, o->message_class);
    uint32_t epoch = p ? p->epoch : o->epoch;
    check("answer", replcore_handle_answer_inbound(leaf, now, o->token, epoch, p ? p->position : 0, 0));
  } else if (o->kind == REPLCORE_OUTPUT_KIND_ASK_PLACE) {
    uint64_t place;
    check("place", replcore_place_after(state.lives, own ? LIVES_MAX : 0, o->epoch, o->position, released, &place));
    check("answer", replcore_handle_answer_place(leaf, now, o->token, place));
  } else {
    if (own) watching = (int)o->stream;
    check("answer", replcore_handle_answer_outbound(leaf, now, o->token, state.epoch, released, next, next));
  }
}

/* Does what the leaf orders until it is idle. */
static void drain(void)
{
  replcore_output o;
  for (;;) {
    check("poll", replcore_poll(leaf, out, sizeof out, &o));
    switch (o.kind) {
    case REPLCORE_OUTPUT_KIND_IDLE: return;
    case REPLCORE_OUTPUT_KIND_SEND: send(out, o.len); break;
    case REPLCORE_OUTPUT_KIND_SEND_RECORDS: send_records(&o); break;
    case REPLCORE_OUTPUT_KIND_TAKE_RECORDS: take_records(&o); break;
    case REPLCORE_OUTPUT_KIND_TAKE_SKIP: go_on(&o, o.next); break;
    case REPLCORE_OUTPUT_KIND_PLACE: go_on(&o, o.position); break;
    case REPLCORE_OUTPUT_KIND_SKIP_BYTES:
    case REPLCORE_OUTPUT_KIND_TAKE_CALL: frame_at += o.len < frame_len - frame_at ? o.len : frame_len - frame_at; break;
    case REPLCORE_OUTPUT_KIND_RELEASE:
      if (o.message_class == CLASS && o.position > state.released) state.released = o.position;
      break;
    case REPLCORE_OUTPUT_KIND_ASK_INBOUND:
    case REPLCORE_OUTPUT_KIND_ASK_PLACE:
    case REPLCORE_OUTPUT_KIND_ASK_OUTBOUND: answer(&o); break;
    case REPLCORE_OUTPUT_KIND_DIAL: dial = o.dial, begin_link(); break;
    case REPLCORE_OUTPUT_KIND_HANGUP: link_down(); break;
    case REPLCORE_OUTPUT_KIND_RESUME:
    case REPLCORE_OUTPUT_KIND_EVENT: break;
    default: board_fail("an order that is beyond this program");
    }
  }
}

static void take_frame(size_t at, size_t len)
{
  if (!connected) return;
  frame = came + at, frame_len = len, frame_at = 0;
  check("recv", replcore_handle_recv(leaf, board_now_us(), 0, frame, len, &frame_at));
  drain();
  frame_len = frame_at = 0; /* what is not taken of a datagram is gone */
}

/* Takes what the line has, packet by packet. */
static void receive(void)
{
  uint8_t byte;
  size_t taken, len, at, frame_bytes;
  for (uint32_t i = 0; i < READ_MAX && board_receive(&byte); i++) {
    check("line", replcore_cobs_take(&decoder, &byte, 1, came, sizeof came, &taken, &len));
    if (len == SIZE_MAX) continue;
    switch (line_take(came, len, &at, &frame_bytes)) {
    case LINE_UP: link_up(), drain(); break;
    case LINE_DOWN: if (connected) link_down(), drain(); break;
    case LINE_FRAME: take_frame(at, frame_bytes); break;
    case LINE_NOTHING: break;
    }
  }
}

/* Makes the leaf of what the log holds. */
static void begin(void)
{
  replcore_leaf_config config;
  memset(&config, 0, sizeof config);
  config.struct_size = sizeof config;
  config.name = NAME, config.instance = state.instance, config.epoch = state.epoch;
  config.seed = board_random() ^ state.instance ^ state.epoch;
  config.frame_bytes_max = FRAME_MAX, config.window_bytes = 2 * FRAME_MAX;
  config.keepalive_ms = 1000, config.retransmit_ms = 200;
  config.retry_ms_min = 100, config.retry_ms_max = 2000;
  check("leaf", replcore_leaf_init(leaf_memory, sizeof leaf_memory, &config, &leaf));
}

int main(void)
{
  board_start();
  if (replcore_abi() != REPLCORE_ABI) board_fail("library and header differ");
  if (replcore_cobs_encoded_max(SEALED_MAX) + 1 > PACKET_MAX) board_fail("PACKET_MAX is too small");
  check(NAME, replcore_name_id(NAME, &own_id));
  log_open(board_random());
  begin();
  say_start();
  board_paint_stack(); /* what the start needed does not count any more */
  for (;;) {
    int posted = post_reading();
    give_up_on_answer();
    check("time", replcore_handle_timeout(leaf, board_now_us()));
    drain();
    receive();
    if (!posted) board_wait();
  }
}
