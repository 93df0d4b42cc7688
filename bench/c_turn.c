/* What the core costs a program in C: the same as `core_cost records LEAVES RECORDS 1`, by the C interface.
 *
 *   c_turn LEAVES RECORDS
 *
 * Leaves and a hub in one thread, connected by memory. Each record of 128 bytes is posted at a leaf in turn,
 * carried through both links and acknowledged; it is copied, and not checked. Under callgrind two runs of
 * different length give the instructions. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replcore.h"

enum { LINE_BYTES = 65536, RECORD_BYTES = 176, CLASS = 2, KEEPALIVE_MS = 1000000000 };

struct site {
  replcore_machine *leaf;
  uint64_t posted, released;
  int watched;
  uint8_t to_leaf[LINE_BYTES], to_hub[LINE_BYTES];
  size_t to_leaf_len, to_hub_len, hub_at;
};

static const uint64_t now = 1000000;
static replcore_machine *hub;
static struct site *sites;
static uint64_t stored;
static uint8_t record[RECORD_BYTES], store[RECORD_BYTES], buf[REPLCORE_POLL_BYTES_MAX];
static uint32_t record_len;

static void check(int32_t status)
{
  if (status == REPLCORE_STATUS_OK) return;
  fprintf(stderr, "c_turn: %s\n", replcore_status_text(status));
  exit(1);
}

static void line_put(uint8_t *line, size_t *len, const uint8_t *bytes, size_t count)
{
  memcpy(line + *len, bytes, count);
  *len += count;
}

static void hub_took(struct site *s, size_t bytes)
{
  s->hub_at += bytes;
  if (s->hub_at == s->to_hub_len) s->hub_at = s->to_hub_len = 0;
}

static void send_record(struct site *s, const replcore_output *o)
{
  replcore_records head = { o->position, 0, 1, 0, 0, o->round, o->stream };
  check(replcore_records_head(&head, record_len, s->to_hub + s->to_hub_len, LINE_BYTES - s->to_hub_len));
  s->to_hub_len += REPLCORE_RECORDS_HEAD_BYTES;
  line_put(s->to_hub, &s->to_hub_len, record, record_len);
  check(replcore_handle_sent(s->leaf, now, 0, o->stream, o->position + 1, 0, record_len,
                             REPLCORE_RECORDS_HEAD_BYTES + record_len));
}

static void drain_leaf(struct site *s)
{
  replcore_output o;
  for (;;) {
    check(replcore_poll(s->leaf, buf, sizeof buf, &o));
    switch (o.kind) {
    case REPLCORE_OUTPUT_KIND_IDLE: return;
    case REPLCORE_OUTPUT_KIND_SEND: line_put(s->to_hub, &s->to_hub_len, buf, o.len); break;
    case REPLCORE_OUTPUT_KIND_SEND_RECORDS: send_record(s, &o); break;
    case REPLCORE_OUTPUT_KIND_RELEASE: s->released = o.position; break;
    case REPLCORE_OUTPUT_KIND_ASK_INBOUND:
      check(replcore_handle_answer_inbound(s->leaf, now, o.token, o.epoch, 0, 0));
      break;
    case REPLCORE_OUTPUT_KIND_ASK_OUTBOUND: {
      uint64_t next = o.message_class == CLASS ? s->posted : 0;
      if (o.message_class == CLASS) s->watched = (int)o.stream;
      check(replcore_handle_answer_outbound(s->leaf, now, o.token, 7, 0, next, next));
      break;
    }
    case REPLCORE_OUTPUT_KIND_EVENT: break;
    default: fprintf(stderr, "c_turn: the leaf orders %u\n", o.kind); exit(1);
    }
  }
}

static void take_record(const replcore_output *o)
{
  struct site *s = &sites[o->link];
  memcpy(store, s->to_hub + s->hub_at, o->len);
  stored += o->completed;
  hub_took(s, o->len);
  check(replcore_handle_taken(hub, now, o->link, o->stream, o->position + o->completed, 0, o->len));
}

static void drain_hub(void)
{
  replcore_output o;
  for (;;) {
    check(replcore_poll(hub, buf, sizeof buf, &o));
    switch (o.kind) {
    case REPLCORE_OUTPUT_KIND_IDLE: return;
    case REPLCORE_OUTPUT_KIND_SEND: line_put(sites[o.link].to_leaf, &sites[o.link].to_leaf_len, buf, o.len); break;
    case REPLCORE_OUTPUT_KIND_TAKE_RECORDS: take_record(&o); break;
    case REPLCORE_OUTPUT_KIND_PERSIST: check(replcore_handle_persisted(hub, now, o.token)); break;
    case REPLCORE_OUTPUT_KIND_ASK_INBOUND:
      check(replcore_handle_answer_inbound(hub, now, o.token, o.epoch, 0, 0));
      break;
    case REPLCORE_OUTPUT_KIND_ASK_OUTBOUND: check(replcore_handle_answer_outbound(hub, now, o.token, 7, 0, 0, 0)); break;
    case REPLCORE_OUTPUT_KIND_RELEASE:
    case REPLCORE_OUTPUT_KIND_EVENT: break;
    default: fprintf(stderr, "c_turn: the hub orders %u\n", o.kind); exit(1);
    }
  }
}

/* Moves bytes between a leaf and the hub until neither has anything to say. */
static void settle(uint32_t index)
{
  struct site *s = &sites[index];
  size_t taken;
  for (;;) {
    drain_leaf(s);
    int hub_heard = s->to_hub_len > 0, leaf_heard;
    if (hub_heard) {
      check(replcore_handle_recv(hub, now, index, s->to_hub + s->hub_at, s->to_hub_len - s->hub_at, &taken));
      hub_took(s, taken);
    }
    drain_hub();
    leaf_heard = s->to_leaf_len > 0;
    if (leaf_heard) check(replcore_handle_recv(s->leaf, now, 0, s->to_leaf, s->to_leaf_len, &taken));
    s->to_leaf_len = 0;
    if (!hub_heard && !leaf_heard) return;
  }
}

static void connect_leaf(uint32_t index)
{
  struct site *s = &sites[index];
  replcore_leaf_config config;
  replcore_output o;
  char name[32];
  memset(&config, 0, sizeof config);
  snprintf(name, sizeof name, "leaf-%u", index);
  config.struct_size = sizeof config, config.name = name;
  config.instance = index + 1, config.epoch = 7, config.seed = index, config.keepalive_ms = KEEPALIVE_MS;
  s->watched = -1;
  check(replcore_leaf_init(malloc(replcore_leaf_memory()), replcore_leaf_memory(), &config, &s->leaf));
  check(replcore_handle_timeout(s->leaf, now));
  check(replcore_poll(s->leaf, buf, sizeof buf, &o));
  check(replcore_handle_link_up(s->leaf, now, 0, 0, REPLCORE_TRANSPORT_STREAM, 0));
  check(replcore_handle_writable(s->leaf, now, 0, UINT32_MAX));
  check(replcore_handle_link_up(hub, now, index, REPLCORE_NOT_DIALED, REPLCORE_TRANSPORT_STREAM, 0));
  check(replcore_handle_writable(hub, now, index, UINT32_MAX));
  settle(index);
}

static void post(uint32_t index)
{
  struct site *s = &sites[index];
  s->posted++;
  if (s->watched >= 0) check(replcore_handle_appended(s->leaf, now, 0, (uint32_t)s->watched, s->posted));
  settle(index);
}

static void begin(uint32_t leaves)
{
  static uint8_t body[128];
  replcore_node_config config;
  replcore_message message;
  replcore_record_id id = { 1, 1, 7, CLASS };
  size_t written;
  memset(&config, 0, sizeof config);
  config.struct_size = sizeof config, config.name = "hub", config.instance = 1, config.epoch = 7;
  config.links_max = config.leaves_max = leaves, config.keepalive_ms = KEEPALIVE_MS;
  size_t size = replcore_node_memory(&config);
  check(replcore_node_init(malloc(size), size, &config, &hub));
  memset(&message, 0, sizeof message);
  message.struct_size = sizeof message, message.body = body, message.body_len = sizeof body;
  check(replcore_record_encode(&message, &id, 1, record, sizeof record, &written));
  record_len = (uint32_t)written;
  sites = (struct site *)calloc(leaves, sizeof *sites);
  for (uint32_t index = 0; index < leaves; index++) connect_leaf(index);
}

int main(int argc, char **argv)
{
  if (argc != 3) {
    fprintf(stderr, "usage: c_turn LEAVES RECORDS\n");
    return 2;
  }
  uint32_t leaves = (uint32_t)strtoul(argv[1], NULL, 10), records = (uint32_t)strtoul(argv[2], NULL, 10);
  begin(leaves);
  /* Each leaf once, so that every stream is open before the measurement. */
  for (uint32_t index = 0; index < leaves; index++) post(index);
  uint64_t before = stored;
  for (uint32_t round = 0; round < records; round++) post(round % leaves);
  for (uint32_t index = 0; index < leaves; index++)
    if (sites[index].released != sites[index].posted) return 1;
  return stored - before != records;
}
