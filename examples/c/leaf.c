/* A leaf in C: posts lines, prints what its hub sends, and keeps both in one file, so that nothing
 * is lost or doubled when it, the hub or the line between them dies at any time.
 *
 *   leaf NAME FILE HOST PORT               posts the lines of standard input
 *   leaf NAME FILE HOST PORT COUNT WANTED  posts "NAME 1" to "NAME COUNT", ends when all of them
 *                                          are acknowledged and WANTED messages were received
 *   leaf NAME FILE                         prints the messages that FILE holds as received
 *
 * The file is a log; see files.h. Two kinds of notes stand among the records:
 *
 *   2  instance u64, released u64, base u64, epoch u32: how the outgoing queue stands; with another
 *      epoch, that a start of this program began a new life of the log
 *   3  owner u64, queue u64, position u64, epoch u32, class u32: how far an incoming stream was
 *      taken; the first entry of a batch of received records
 *
 * Records of the outgoing queue are numbered by the order in the file: that is their position in the
 * stream, and `base` is the position at which the present life began. So a file that was put back
 * from an older copy loses what was added since the copy, and nothing that is added afterwards. The
 * file only grows; a daemon's store does better. */

#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "links.h"

enum {
  FRAME_MAX = 65536, RECORD_MAX = 65536, OUT_MAX = 4 * FRAME_MAX, QUEUE_MAX = 1 << 20,
  STREAMS_MAX = 8, LIVES_MAX = 16, LINE_MAX_BYTES = 4096, NOTE_QUEUE = 2, NOTE_PLACE = 3, CLASS = 2
};

struct place { uint64_t owner, queue, position; uint32_t epoch, message_class; };

static struct { uint64_t instance, released, base; uint32_t epoch, reserved; } queue;
static replcore_life lives[LIVES_MAX];          /* earlier ones of which something is not released */
static size_t life_count;
static struct place places[STREAMS_MAX];
static size_t place_count;
static uint64_t next_record, received;         /* outgoing and incoming records in the file */
static off_t *record_at;                       /* by number of an outgoing record */
static struct log_file file;
static uint64_t own_id;
static const char *own_name;
static char hub[300];                          /* its address */
static replcore_machine *leaf;
static struct links links;                     /* a leaf has one */
static uint8_t part[4][RECORD_MAX];            /* by class: the record that has begun to arrive */
static size_t part_len[4];
static int watching = -1;                      /* the stream that sends the queue */
static int printing;                           /* what the file holds, and nothing else */

/* ---- What the file holds ---- */

static size_t note_queue(size_t at) { return log_note(&file, at, NOTE_QUEUE, &queue, sizeof queue); }

static struct place *place_of(uint64_t owner, uint64_t name, uint32_t message_class)
{
  struct place *p = places, *end = places + place_count;
  while (p < end && !(p->owner == owner && p->queue == name && p->message_class == message_class)) p++;
  return p < end ? p : NULL;
}

static void set_place(const struct place *p)
{
  struct place *known = place_of(p->owner, p->queue, p->message_class);
  if (known == NULL && place_count == STREAMS_MAX) memmove(places, places + 1, sizeof places - sizeof *places), place_count--;
  if (known == NULL) known = &places[place_count++];
  *known = *p;
}

/* Takes what the log says of the queue. With another epoch a life has ended, at `base`. */
static void set_queue(const uint8_t *note)
{
  uint32_t ended = queue.instance != 0 ? queue.epoch : 0;
  memcpy(&queue, note, sizeof queue);
  if (ended == 0 || ended == queue.epoch) return;
  size_t kept = 0;
  for (size_t i = 0; i < life_count; i++)
    if (lives[i].end > queue.released) lives[kept++] = lives[i];
  life_count = kept;
  if (queue.base <= queue.released) return;
  if (life_count == LIVES_MAX) {
    /* A hub is in the life of its last acknowledgement, the oldest, or in a late one. */
    memmove(lives + LIVES_MAX / 2, lives + LIVES_MAX / 2 + 1, (LIVES_MAX / 2 - 1) * sizeof *lives);
    life_count--;
  }
  replcore_life life = { queue.base, ended, 0 };
  lives[life_count++] = life;
}

static void print_record(const uint8_t *bytes, size_t len)
{
  replcore_record r;
  if (replcore_record_check(bytes, len, &r) != REPLCORE_STATUS_OK) return;
  printf("%.*s/%" PRIu64 " %.*s\n", (int)r.origin_name_len, bytes + r.origin_name_at, r.id.seq,
         (int)r.body_len, bytes + r.body_at);
}

/* Takes what one batch holds into memory, or prints the received records in it. */
static void read_batch(const uint8_t *entries, size_t len, off_t at)
{
  int incoming = 0;
  while (len > 0) {
    uint32_t kind;
    size_t entry;
    check("log entry", replcore_entry_read(entries, len, UINT32_MAX, &kind, &entry));
    if (kind == NOTE_QUEUE) set_queue(entries + 12);
    if (kind == NOTE_PLACE) {
      struct place p;
      memcpy(&p, entries + 12, sizeof p);
      set_place(&p);
      incoming = 1;
    }
    if (kind == REPLCORE_ENTRY_RECORD && incoming && printing) print_record(entries, entry);
    if (kind == REPLCORE_ENTRY_RECORD && incoming) received++;
    else if (kind == REPLCORE_ENTRY_RECORD) record_at[next_record++ % QUEUE_MAX] = at;
    entries += entry, at += (off_t)entry, len -= entry;
  }
}

/* Each start begins a new life of the log, so that no number is ever given twice. */
static void begin_life(void)
{
  uint64_t number = random_number();
  uint8_t begun[sizeof queue];
  uint32_t ended = queue.epoch;
  if (queue.instance == 0) queue.instance = number, queue.epoch = replcore_epoch_first(number >> 32);
  else queue.epoch = replcore_epoch_next(ended, number >> 32), queue.base = next_record;
  log_append(&file, note_queue(0), 0);
  memcpy(begun, &queue, sizeof queue);
  queue.epoch = ended;
  set_queue(begun);
}

/* ---- Outgoing ---- */

/* Adds one line to the batch being made and returns where the batch then ends. */
static size_t add_line(const char *line, size_t len, size_t at, uint64_t number)
{
  replcore_message m;
  memset(&m, 0, sizeof m);
  m.struct_size = sizeof m, m.message_type = "line", m.origin_name = own_name;
  m.body = (const uint8_t *)line, m.body_len = len;
  replcore_record_id id = { own_id, number - queue.base + 1, queue.epoch, CLASS };
  size_t written, room = sizeof file.batch - REPLCORE_BATCH_HEADER_BYTES - at;
  check("message", replcore_record_encode(&m, &id, wall_ms(), log_entry(&file, at), room, &written));
  record_at[number % QUEUE_MAX] = log_place(&file, at);
  return at + written;
}

static void lines_added(size_t end, uint32_t count)
{
  if (count == 0) return;
  log_append(&file, note_queue(end), count);
  next_record += count;
  if (watching >= 0)
    check("appended", replcore_handle_appended(leaf, now_us(), 0, (uint32_t)watching, next_record));
}

/* Reads the outgoing record of that number into `to`. */
static size_t read_record(uint64_t number, uint8_t *to, size_t room)
{
  uint32_t kind;
  size_t len;
  replcore_record r;
  ssize_t got = pread(file.fd, to, room, record_at[number % QUEUE_MAX]);
  if (got < 0 || replcore_entry_read(to, (size_t)got, RECORD_MAX, &kind, &len) != 0) return 0;
  check("reading the log", replcore_record_check(to, len, &r));
  return len;
}

static void send_records(const replcore_output *o)
{
  static uint8_t record[RECORD_MAX];
  replcore_records head = { o->position, o->offset, 0, 0, 0, o->round, o->stream };
  struct link *l = &links.all[0];
  uint8_t *body = l->out + l->out_len + REPLCORE_RECORDS_HEAD_BYTES;
  uint32_t len = 0;
  uint64_t position = o->position;
  uint32_t offset = o->offset;
  while (position < next_record) {
    size_t bytes = read_record(position, record, sizeof record);
    if (bytes <= offset) break;
    if (bytes - offset > o->bytes_max - len) {
      if (head.completed > 0) break;
      head.tail_bytes = o->bytes_max;
      memcpy(body, record + offset, o->bytes_max);
      len = o->bytes_max, offset += len;
      break;
    }
    memcpy(body + len, record + offset, bytes - offset);
    len += (uint32_t)(bytes - offset), head.completed++, position++, offset = 0;
  }
  if (len == 0) die("the log lacks a record that it should hold");
  check("head", replcore_records_head(&head, len, l->out + l->out_len, OUT_MAX - l->out_len));
  l->out_len += REPLCORE_RECORDS_HEAD_BYTES + len;
  check("sent", replcore_handle_sent(leaf, now_us(), 0, o->stream, position, offset, len,
                                     REPLCORE_RECORDS_HEAD_BYTES + len));
}

/* ---- Incoming ---- */

static void take_records(const replcore_output *o, const uint8_t *bytes)
{
  uint8_t *begun = part[o->message_class % 4];
  size_t *begun_len = &part_len[o->message_class % 4];
  struct place p = { o->node, o->queue, o->position + o->completed, o->epoch, o->message_class };
  size_t start = log_note(&file, 0, NOTE_PLACE, &p, sizeof p), end = start, len = 0;
  uint8_t *to = log_entry(&file, 0);
  replcore_record r;
  uint32_t kind, refused = o->raw_bytes != 0 ? REPLCORE_FAILURE_CORRUPT : 0;
  if (o->offset == 0) *begun_len = 0;
  if (o->offset != *begun_len) refused = REPLCORE_FAILURE_CORRUPT;

  /* What had begun to arrive, and what came now, are whole records and perhaps a begun one. */
  memcpy(to + start, begun, *begun_len);
  memcpy(to + start + *begun_len, bytes, o->len);
  size_t total = start + *begun_len + o->len;
  for (uint32_t done = 0; refused == 0 && done < o->completed; done++, end += len)
    if (replcore_entry_read(to + end, total - end, RECORD_MAX, &kind, &len) != 0
        || replcore_record_check(to + end, len, &r) != 0) refused = REPLCORE_FAILURE_CORRUPT;
  if (refused == 0 && total - end > RECORD_MAX) refused = REPLCORE_FAILURE_FULL;
  *begun_len = refused != 0 ? 0 : total - end;
  memcpy(begun, to + end, *begun_len);
  if (refused != 0) {
    check("refused", replcore_handle_refused(leaf, now_us(), 0, o->stream, refused));
    return;
  }
  if (o->completed > 0) {
    log_append(&file, end, o->completed);
    printing = 1;
    read_batch(to, end, file.end - (off_t)end);
    printing = 0;
    fflush(stdout);
  }
  check("taken", replcore_handle_taken(leaf, now_us(), 0, o->stream, p.position, (uint32_t)*begun_len,
                                       o->len));
}

/* The stream goes on elsewhere: behind what will not come, or where its owner has begun anew. */
static void go_on(const replcore_output *o, uint64_t position)
{
  struct place p = { o->node, o->queue, position, o->epoch, o->message_class };
  log_append(&file, log_note(&file, 0, NOTE_PLACE, &p, sizeof p), 0);
  set_place(&p);
  part_len[o->message_class % 4] = 0;
  check("taken", replcore_handle_taken(leaf, now_us(), 0, o->stream, position, 0, 0));
}

/* ---- The link and the loop ---- */

static void closed(uint32_t number)
{
  (void)number;
  watching = -1;
  memset(part_len, 0, sizeof part_len);
}

static void answer(const replcore_output *o)
{
  if (o->kind == REPLCORE_OUTPUT_KIND_ASK_INBOUND) {
    const struct place *p = place_of(o->node, o->queue, o->message_class);
    uint32_t epoch = p ? p->epoch : o->epoch;
    check("answer", replcore_handle_answer_inbound(leaf, now_us(), o->token, epoch, p ? p->position : 0, 0));
    return;
  }
  /* All is posted in one class; the others are empty. */
  uint64_t next = o->message_class == CLASS ? next_record : 0;
  uint64_t released = o->message_class == CLASS ? queue.released : 0;
  if (o->kind == REPLCORE_OUTPUT_KIND_ASK_PLACE) {
    uint64_t place;
    size_t count = o->message_class == CLASS ? life_count : 0;
    check("place", replcore_place_after(lives, count, o->epoch, o->position, released, &place));
    check("answer", replcore_handle_answer_place(leaf, now_us(), o->token, place));
    return;
  }
  if (o->message_class == CLASS) watching = (int)o->stream;
  check("answer", replcore_handle_answer_outbound(leaf, now_us(), o->token, queue.epoch, released, next, next));
}

/* Does what the leaf orders until it is idle; returns when to wake it. */
static uint64_t drain(void)
{
  static uint8_t buf[REPLCORE_POLL_BYTES_MAX];
  replcore_output o;
  for (;;) {
    check("poll", replcore_poll(leaf, buf, sizeof buf, &o));
    if (link_order(&links, &o, buf, hub)) continue;
    switch (o.kind) {
    case REPLCORE_OUTPUT_KIND_IDLE: return o.next;
    case REPLCORE_OUTPUT_KIND_SEND_RECORDS: send_records(&o); break;
    case REPLCORE_OUTPUT_KIND_TAKE_SKIP:
      fprintf(stderr, "leaf: %" PRIu64 " messages will not come (%u)\n", o.next - o.position, o.reason);
      go_on(&o, o.next);
      break;
    case REPLCORE_OUTPUT_KIND_PLACE: go_on(&o, o.position); break;
    case REPLCORE_OUTPUT_KIND_RELEASE:
      if (o.message_class == CLASS) queue.released = o.position;
      break;
    case REPLCORE_OUTPUT_KIND_ASK_INBOUND:
    case REPLCORE_OUTPUT_KIND_ASK_PLACE:
    case REPLCORE_OUTPUT_KIND_ASK_OUTBOUND: answer(&o); break;
    case REPLCORE_OUTPUT_KIND_EVENT:
      if (o.event == REPLCORE_LEAF_EVENT_REFUSED) fprintf(stderr, "leaf: refused (%u)\n", o.reason);
      break;
    default: fprintf(stderr, "leaf: order %u is beyond this program\n", o.kind); exit(1);
    }
  }
}

/* Posts the whole lines that standard input has. 0 at its end. */
static int read_lines(void)
{
  static char text[LINE_MAX_BYTES];
  static size_t len;
  ssize_t n = read(0, text + len, sizeof text - len);
  size_t end = 0, start = 0;
  if (n < 0) return errno == EINTR;
  uint32_t count = 0;
  len += (size_t)n;
  for (size_t i = 0; i < len; i++) {
    int last = n == 0 || len == sizeof text ? i + 1 == len : 0; /* unfinished, or too long */
    if (text[i] != '\n' && !last) continue;
    end = add_line(text + start, i - start + (text[i] != '\n'), end, next_record + count++);
    start = i + 1;
  }
  lines_added(end, count);
  len -= start;
  memmove(text, text + start, len);
  return n > 0;
}

static void post_count(uint64_t count)
{
  size_t end = 0;
  char line[128];
  uint32_t added = 0;
  while (next_record + added < count && next_record + added - queue.released < 1000 && added < 50) {
    int len = snprintf(line, sizeof line, "%s %" PRIu64, own_name, next_record + added + 1);
    end = add_line(line, (size_t)len, end, next_record + added++);
  }
  lines_added(end, added);
}

/* Makes the leaf of what the file holds. */
static void begin(const char *host, const char *port)
{
  replcore_leaf_config config;
  memset(&config, 0, sizeof config);
  config.struct_size = sizeof config;
  config.name = own_name, config.instance = queue.instance, config.epoch = queue.epoch;
  config.seed = queue.instance ^ now_us();
  config.frame_bytes_max = FRAME_MAX, config.retry_ms_min = 100, config.retry_ms_max = 2000;
  size_t memory = replcore_leaf_memory();
  check("leaf", replcore_leaf_init(malloc(memory), memory, &config, &leaf));
  snprintf(hub, sizeof hub, "%s:%s", host, port);
  links.machine = leaf, links.drain = drain, links.take = take_records, links.closed = closed;
  links_init(&links, 1, FRAME_MAX + RECORD_MAX, OUT_MAX);
  check("start", replcore_handle_timeout(leaf, now_us()));
}

int main(int argc, char **argv)
{
  program_name = "leaf";
  if (argc != 3 && argc != 5 && argc != 7) {
    fprintf(stderr, "usage: leaf NAME FILE [HOST PORT [COUNT WANTED]]\n");
    return 2;
  }
  if (replcore_abi() != REPLCORE_ABI) { fprintf(stderr, "leaf: library and header differ\n"); return 1; }
  own_name = argv[1];
  check(own_name, replcore_name_id(own_name, &own_id));
  record_at = (off_t *)calloc(QUEUE_MAX, sizeof *record_at);
  if (record_at == NULL) die("memory");
  printing = argc == 3;
  log_open(&file, argv[2], read_batch);
  if (printing) return 0;
  begin_life();
  begin(argv[3], argv[4]);
  uint64_t count = argc == 7 ? strtoull(argv[5], NULL, 10) : 0;
  uint64_t wanted = argc == 7 ? strtoull(argv[6], NULL, 10) : UINT64_MAX;
  int input_open = argc == 5;
  for (;;) {
    if (argc == 7) post_count(count);
    if (argc == 7 && queue.released >= count && next_record >= count && received >= wanted) break;
    int room = next_record - queue.released < QUEUE_MAX - LINE_MAX_BYTES;
    struct pollfd input = { input_open && room ? 0 : -1, POLLIN, 0 };
    links_wait(&links, -1, &input, 1);
    if (input.revents != 0) input_open = read_lines();
  }
  log_append(&file, note_queue(0), 0);
  check("stop", replcore_leaf_stop(leaf, now_us()));
  drain();
  return 0;
}
