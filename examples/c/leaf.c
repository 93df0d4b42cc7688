/* A leaf in C: posts lines, prints what its hub sends, and keeps both in one file, so that nothing
 * is lost or doubled when it, the hub or the line between them dies at any time.
 *
 *   leaf NAME FILE HOST PORT               posts the lines of standard input
 *   leaf NAME FILE HOST PORT COUNT WANTED  posts "NAME 1" to "NAME COUNT", ends when all of them
 *                                          are acknowledged and WANTED messages were received
 *   leaf NAME FILE                         prints the messages that FILE holds as received
 *
 * The file is a log as docs/wire.md describes it: a run of batches, each written with one call and
 * synced, each counting as a whole or not at all. Two kinds of notes stand among the records:
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
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "replcore.h"

enum {
  FRAME_MAX = 65536, RECORD_MAX = 65536, OUT_MAX = 4 * FRAME_MAX, QUEUE_MAX = 1 << 20,
  STREAMS_MAX = 8, LIVES_MAX = 16, LINE_MAX_BYTES = 4096, NOTE_QUEUE = 2, NOTE_PLACE = 3, NOTE_BYTES = 64,
  CLASS = 2
};

struct place { uint64_t owner, queue, position; uint32_t epoch, message_class; };

static struct { uint64_t instance, released, base; uint32_t epoch, reserved; } queue;
static replcore_life lives[LIVES_MAX];          /* earlier ones of which something is not released */
static size_t life_count;
static struct place places[STREAMS_MAX];
static size_t place_count;
static uint64_t next_record, received;         /* outgoing and incoming records in the file */
static off_t *record_at;                       /* by number of an outgoing record */
static off_t log_end;
static int log_fd, link_fd = -1;
static uint64_t own_id;
static const char *own_name;
static replcore_machine *leaf;

static uint8_t in[FRAME_MAX + RECORD_MAX], out[OUT_MAX], batch[2 * FRAME_MAX + RECORD_MAX];
static size_t in_len, out_len;
static uint8_t part[4][RECORD_MAX];            /* by class: the record that has begun to arrive */
static size_t part_len[4];
static replcore_output order;                  /* bytes to take or skip that are not all there */
static int watching = -1;                      /* the stream that sends the queue */

static void die(const char *what)
{
  fprintf(stderr, "leaf: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void check(const char *what, int32_t status)
{
  if (status != REPLCORE_STATUS_OK) {
    fprintf(stderr, "leaf: %s: %s\n", what, replcore_status_text(status));
    exit(1);
  }
}

static uint64_t now_us(clockid_t clock)
{
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

#define NOW now_us(CLOCK_MONOTONIC)

/* ---- The log ---- */

/* Writes the batch whose entries are in batch[32..32+len] and syncs it. */
static void log_append(size_t len, uint32_t records)
{
  replcore_batch head = { 1, next_record + received, (uint32_t)len, records };
  check("batch", replcore_batch_encode(&head, batch, sizeof batch));
  len += REPLCORE_BATCH_HEADER_BYTES;
  for (size_t done = 0; done < len;) {
    ssize_t n = pwrite(log_fd, batch + done, len - done, log_end + (off_t)done);
    if (n < 0) die("writing the log");
    done += (size_t)n;
  }
  if (fdatasync(log_fd) != 0) die("syncing the log");
  log_end += (off_t)len;
}

static size_t note(uint32_t kind, const void *payload, size_t len, size_t at)
{
  size_t written;
  uint8_t *to = batch + REPLCORE_BATCH_HEADER_BYTES + at;
  check("note", replcore_entry_encode(kind, (const uint8_t *)payload, len, to, NOTE_BYTES, &written));
  return at + written;
}

static struct place *place_of(uint64_t owner, uint64_t name, uint32_t message_class)
{
  for (size_t i = 0; i < place_count; i++)
    if (places[i].owner == owner && places[i].queue == name
        && places[i].message_class == message_class) return &places[i];
  return NULL;
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
  lives[life_count].end = queue.base;
  lives[life_count].epoch = ended;
  lives[life_count++].reserved = 0;
}

static void print_record(const uint8_t *bytes, size_t len)
{
  replcore_record r;
  if (replcore_record_check(bytes, len, &r) != REPLCORE_STATUS_OK) return;
  printf("%.*s/%" PRIu64 " %.*s\n", (int)r.origin_name_len, bytes + r.origin_name_at, r.id.seq,
         (int)r.body_len, bytes + r.body_at);
}

/* Takes what one batch holds into memory, or prints the received records in it. */
static void read_batch(const uint8_t *entries, size_t len, off_t at, int print)
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
    if (kind == REPLCORE_ENTRY_RECORD && incoming) {
      received++;
      if (print) print_record(entries, entry);
    } else if (kind == REPLCORE_ENTRY_RECORD) {
      record_at[next_record++ % QUEUE_MAX] = at;
    }
    entries += entry, at += (off_t)entry, len -= entry;
  }
}

/* Each start begins a new life of the log, so that no number is ever given twice. */
static void begin_life(void)
{
  uint64_t number;
  int random = open("/dev/urandom", O_RDONLY);
  if (random < 0 || read(random, &number, 8) != 8) die("/dev/urandom");
  close(random);
  if (queue.instance == 0) {
    queue.instance = number | 1;
    queue.epoch = replcore_epoch_first(number >> 32);
    log_append(note(NOTE_QUEUE, &queue, sizeof queue, 0), 0);
    return;
  }
  uint8_t begun[sizeof queue];
  uint32_t ended = queue.epoch;
  queue.epoch = replcore_epoch_next(ended, number), queue.base = next_record;
  log_append(note(NOTE_QUEUE, &queue, sizeof queue, 0), 0);
  memcpy(begun, &queue, sizeof queue);
  queue.epoch = ended;
  set_queue(begun);
}

/* Reads the log up to the first batch that is not whole, which a crash has torn, and goes on there. */
static void log_open(const char *path, int print)
{
  log_fd = open(path, O_RDWR | O_CREAT, 0644);
  record_at = (off_t *)calloc(QUEUE_MAX, sizeof *record_at);
  off_t size = log_fd < 0 ? -1 : lseek(log_fd, 0, SEEK_END);
  uint8_t *bytes = size < 0 ? NULL : (uint8_t *)malloc((size_t)size + 1);
  if (bytes == NULL || record_at == NULL || pread(log_fd, bytes, (size_t)size, 0) != size) die(path);
  replcore_batch b;
  int32_t status;
  while ((status = replcore_batch_read(bytes + log_end, (size_t)(size - log_end), 1, &b)) == 0) {
    off_t at = log_end + REPLCORE_BATCH_HEADER_BYTES;
    read_batch(bytes + at, b.entries_len, at, print);
    log_end = at + b.entries_len;
  }
  free(bytes);
  if (status == REPLCORE_STATUS_FORMAT) check(path, status);
  if (log_end < size && ftruncate(log_fd, log_end) != 0) die("cutting the torn end of the log");
  if (!print) begin_life();
}

/* ---- Outgoing ---- */

/* Adds one line to the batch being made and returns where the batch then ends. */
static size_t add_line(const char *line, size_t len, size_t at, uint64_t number)
{
  replcore_message m;
  memset(&m, 0, sizeof m);
  m.struct_size = sizeof m;
  m.message_type = "line";
  m.origin_name = own_name;
  m.body = (const uint8_t *)line, m.body_len = len;
  replcore_record_id id = { own_id, number - queue.base + 1, queue.epoch, CLASS };
  uint8_t *to = batch + REPLCORE_BATCH_HEADER_BYTES + at;
  size_t written;
  check("message", replcore_record_encode(&m, &id, now_us(CLOCK_REALTIME) / 1000, to,
                                          sizeof batch - REPLCORE_BATCH_HEADER_BYTES - at, &written));
  record_at[number % QUEUE_MAX] = log_end + REPLCORE_BATCH_HEADER_BYTES + (off_t)at;
  return at + written;
}

static void lines_added(size_t end, uint32_t count)
{
  if (count == 0) return;
  log_append(note(NOTE_QUEUE, &queue, sizeof queue, end), count);
  next_record += count;
  if (watching >= 0)
    check("appended", replcore_handle_appended(leaf, NOW, 0, (uint32_t)watching, next_record));
}

/* Reads the outgoing record of that number into `to`. */
static size_t read_record(uint64_t number, uint8_t *to, size_t room)
{
  uint32_t kind;
  size_t len;
  replcore_record r;
  ssize_t got = pread(log_fd, to, room, record_at[number % QUEUE_MAX]);
  if (got < 0 || replcore_entry_read(to, (size_t)got, RECORD_MAX, &kind, &len) != 0) return 0;
  check("reading the log", replcore_record_check(to, len, &r));
  return len;
}

static void send_records(const replcore_output *o)
{
  static uint8_t record[RECORD_MAX];
  replcore_records head = { o->position, o->offset, 0, 0, 0, o->round, o->stream };
  uint8_t *body = out + out_len + REPLCORE_RECORDS_HEAD_BYTES;
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
  check("head", replcore_records_head(&head, len, out + out_len, OUT_MAX - out_len));
  out_len += REPLCORE_RECORDS_HEAD_BYTES + len;
  check("sent", replcore_handle_sent(leaf, NOW, 0, o->stream, position, offset, len,
                                     REPLCORE_RECORDS_HEAD_BYTES + len));
}

/* ---- Incoming ---- */

static void take_records(const replcore_output *o, const uint8_t *bytes)
{
  uint8_t *begun = part[o->message_class % 4];
  size_t *begun_len = &part_len[o->message_class % 4];
  struct place p = { o->node, o->queue, o->position + o->completed, o->epoch, o->message_class };
  size_t start = note(NOTE_PLACE, &p, sizeof p, 0), end = start, len = 0;
  uint8_t *to = batch + REPLCORE_BATCH_HEADER_BYTES;
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
    check("refused", replcore_handle_refused(leaf, NOW, 0, o->stream, refused));
    return;
  }
  if (o->completed > 0) {
    log_append(end, o->completed);
    read_batch(to, end, log_end - (off_t)end, 1);
    fflush(stdout);
  }
  check("taken", replcore_handle_taken(leaf, NOW, 0, o->stream, p.position, (uint32_t)*begun_len,
                                       o->len));
}

static void take_skip(const replcore_output *o)
{
  struct place p = { o->node, o->queue, o->next, o->epoch, o->message_class };
  fprintf(stderr, "leaf: %" PRIu64 " messages will not come (%u)\n", o->next - o->position, o->reason);
  log_append(note(NOTE_PLACE, &p, sizeof p, 0), 0);
  set_place(&p);
  part_len[o->message_class % 4] = 0;
  check("taken", replcore_handle_taken(leaf, NOW, 0, o->stream, o->next, 0, 0));
}

static void take_place(const replcore_output *o)
{
  struct place p = { o->node, o->queue, o->position, o->epoch, o->message_class };
  log_append(note(NOTE_PLACE, &p, sizeof p, 0), 0);
  set_place(&p);
  part_len[o->message_class % 4] = 0;
  check("taken", replcore_handle_taken(leaf, NOW, 0, o->stream, o->position, 0, 0));
}

/* ---- The link and the loop ---- */

static void link_down(void)
{
  if (link_fd >= 0) close(link_fd);
  link_fd = watching = -1;
  in_len = out_len = order.kind = 0;
  memset(part_len, 0, sizeof part_len);
  check("link down", replcore_handle_link_down(leaf, NOW, 0));
}

static void dial(const char *host, const char *port)
{
  struct addrinfo hints, *found = NULL;
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(host, port, &hints, &found) == 0) {
    link_fd = socket(found->ai_family, SOCK_STREAM, 0);
    if (link_fd >= 0 && connect(link_fd, found->ai_addr, found->ai_addrlen) != 0) {
      close(link_fd);
      link_fd = -1;
    }
    freeaddrinfo(found);
  }
  if (link_fd < 0) {
    check("dial failed", replcore_handle_dial_failed(leaf, NOW, 0));
    return;
  }
  fcntl(link_fd, F_SETFL, O_NONBLOCK);
  check("link up", replcore_handle_link_up(leaf, NOW, 0, 0, REPLCORE_TRANSPORT_STREAM, 0));
  check("writable", replcore_handle_writable(leaf, NOW, 0, OUT_MAX));
}

static void answer(const replcore_output *o)
{
  if (o->kind == REPLCORE_OUTPUT_KIND_ASK_INBOUND) {
    const struct place *p = place_of(o->node, o->queue, o->message_class);
    uint32_t epoch = p ? p->epoch : o->epoch;
    check("answer", replcore_handle_answer_inbound(leaf, NOW, o->token, epoch, p ? p->position : 0, 0));
    return;
  }
  /* All is posted in one class; the others are empty. */
  uint64_t next = o->message_class == CLASS ? next_record : 0;
  uint64_t released = o->message_class == CLASS ? queue.released : 0;
  if (o->kind == REPLCORE_OUTPUT_KIND_ASK_PLACE) {
    uint64_t place;
    size_t count = o->message_class == CLASS ? life_count : 0;
    check("place", replcore_place_after(lives, count, o->epoch, o->position, released, &place));
    check("answer", replcore_handle_answer_place(leaf, NOW, o->token, place));
    return;
  }
  if (o->message_class == CLASS) watching = (int)o->stream;
  check("answer", replcore_handle_answer_outbound(leaf, NOW, o->token, queue.epoch, released, next));
}

/* Does what the leaf orders until it is idle; returns when to wake it. */
static uint64_t drain(const char *host, const char *port)
{
  static uint8_t buf[REPLCORE_POLL_BYTES_MAX];
  replcore_output o;
  for (;;) {
    check("poll", replcore_poll(leaf, buf, sizeof buf, &o));
    switch (o.kind) {
    case REPLCORE_OUTPUT_KIND_IDLE: return o.next;
    case REPLCORE_OUTPUT_KIND_SEND: memcpy(out + out_len, buf, o.len); out_len += o.len; break;
    case REPLCORE_OUTPUT_KIND_SEND_RECORDS: send_records(&o); break;
    case REPLCORE_OUTPUT_KIND_TAKE_RECORDS:
    case REPLCORE_OUTPUT_KIND_TAKE_CALL:
    case REPLCORE_OUTPUT_KIND_SKIP_BYTES: order = o; break;
    case REPLCORE_OUTPUT_KIND_TAKE_SKIP: take_skip(&o); break;
    case REPLCORE_OUTPUT_KIND_RELEASE:
      if (o.message_class == CLASS) queue.released = o.position;
      break;
    case REPLCORE_OUTPUT_KIND_PLACE: take_place(&o); break;
    case REPLCORE_OUTPUT_KIND_ASK_INBOUND:
    case REPLCORE_OUTPUT_KIND_ASK_PLACE:
    case REPLCORE_OUTPUT_KIND_ASK_OUTBOUND: answer(&o); break;
    case REPLCORE_OUTPUT_KIND_DIAL: dial(host, port); break;
    case REPLCORE_OUTPUT_KIND_HANGUP:
      if (out_len > 0 && write(link_fd, out, out_len) < 0) { /* the last words are lost */ }
      link_down();
      break;
    case REPLCORE_OUTPUT_KIND_RESUME: break; /* the caller offers again */
    case REPLCORE_OUTPUT_KIND_EVENT:
      if (o.event == REPLCORE_LEAF_EVENT_REFUSED) fprintf(stderr, "leaf: refused (%u)\n", o.reason);
      break;
    default: fprintf(stderr, "leaf: order %u is beyond this program\n", o.kind); exit(1);
    }
  }
}

/* Gives the leaf what came, as far as it takes it. */
static void offer(const char *host, const char *port)
{
  size_t at = 0, taken;
  while (link_fd >= 0) {
    taken = 0;
    if (order.kind == 0) {
      check("recv", replcore_handle_recv(leaf, NOW, 0, in + at, in_len - at, &taken));
      at += taken;
      drain(host, port);
    }
    if (link_fd < 0 || (order.kind == 0 && taken == 0)) break;
    if (order.kind == 0) continue;
    if (in_len - at < order.len) break;
    replcore_output o = order;
    order.kind = 0;
    if (o.kind == REPLCORE_OUTPUT_KIND_TAKE_RECORDS) take_records(&o, in + at);
    at += o.len;
    drain(host, port);
  }
  if (link_fd < 0) return;
  in_len -= at;
  memmove(in, in + at, in_len);
}

static void read_link(const char *host, const char *port)
{
  ssize_t n = read(link_fd, in + in_len, sizeof in - in_len);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) link_down();
  else if (n > 0) { in_len += (size_t)n; offer(host, port); }
}

static void write_link(void)
{
  ssize_t n = write(link_fd, out, out_len);
  if (n < 0 && errno != EAGAIN && errno != EINTR) link_down();
  else if (n > 0) {
    out_len -= (size_t)n;
    memmove(out, out + n, out_len);
    check("writable", replcore_handle_writable(leaf, NOW, 0, (uint32_t)n));
  }
}

/* Posts the whole lines that standard input has. 0 at its end. */
static int read_lines(void)
{
  static char text[LINE_MAX_BYTES];
  static size_t len;
  ssize_t n = read(0, text + len, sizeof text - len);
  size_t end = 0, start = 0;
  uint32_t count = 0;
  if (n < 0) return errno == EINTR;
  len += (size_t)n;
  for (size_t i = 0; i < len; i++) {
    int last = n == 0 || len == sizeof text ? i + 1 == len : 0; /* an unfinished or too long line */
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
  uint32_t added = 0;
  char line[128];
  while (next_record + added < count && next_record + added - queue.released < 1000 && added < 50) {
    int len = snprintf(line, sizeof line, "%s %" PRIu64, own_name, next_record + added + 1);
    end = add_line(line, (size_t)len, end, next_record + added);
    added++;
  }
  lines_added(end, added);
}

int main(int argc, char **argv)
{
  if (argc != 3 && argc != 5 && argc != 7) {
    fprintf(stderr, "usage: leaf NAME FILE [HOST PORT [COUNT WANTED]]\n");
    return 2;
  }
  if (replcore_abi() != REPLCORE_ABI) { fprintf(stderr, "leaf: library and header differ\n"); return 1; }
  own_name = argv[1];
  check(own_name, replcore_name_id(own_name, &own_id));
  log_open(argv[2], argc == 3);
  if (argc == 3) return 0;
  uint64_t count = argc == 7 ? strtoull(argv[5], NULL, 10) : 0;
  uint64_t wanted = argc == 7 ? strtoull(argv[6], NULL, 10) : UINT64_MAX;

  replcore_leaf_config config;
  memset(&config, 0, sizeof config);
  config.struct_size = sizeof config;
  config.name = own_name, config.instance = queue.instance, config.epoch = queue.epoch;
  config.seed = queue.instance ^ NOW;
  config.frame_bytes_max = FRAME_MAX, config.retry_ms_min = 100, config.retry_ms_max = 2000;
  size_t memory = replcore_leaf_memory();
  check("leaf", replcore_leaf_init(malloc(memory), memory, &config, &leaf));

  int input_open = argc == 5;
  check("start", replcore_handle_timeout(leaf, NOW));
  uint64_t wake = drain(argv[3], argv[4]);
  for (;;) {
    if (argc == 7) post_count(count);
    if (argc == 7 && queue.released >= count && next_record >= count && received >= wanted) break;
    wake = drain(argv[3], argv[4]);
    int room = next_record - queue.released < QUEUE_MAX - LINE_MAX_BYTES;
    struct pollfd fds[2] = { { link_fd, (short)(POLLIN | (out_len > 0 ? POLLOUT : 0)), 0 },
                             { input_open && room ? 0 : -1, POLLIN, 0 } };
    uint64_t now = NOW, left = wake > now ? (wake - now + 999) / 1000 : 0;
    if (poll(fds, 2, left > 1000 ? 1000 : (int)left) < 0 && errno != EINTR) die("poll");
    check("time", replcore_handle_timeout(leaf, NOW));
    drain(argv[3], argv[4]);
    if (link_fd >= 0 && fds[0].fd == link_fd && fds[0].revents & ~POLLOUT) read_link(argv[3], argv[4]);
    if (link_fd >= 0 && fds[0].fd == link_fd && out_len > 0) write_link();
    if (fds[1].revents != 0) input_open = read_lines();
  }
  log_append(note(NOTE_QUEUE, &queue, sizeof queue, 0), 0);
  check("stop", replcore_leaf_stop(leaf, NOW));
  drain(argv[3], argv[4]);
  return 0;
}
