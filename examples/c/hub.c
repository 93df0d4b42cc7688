/* The table of leaves of a hub, in the loop of a program in C: who is here, by lease.
 *
 *   hub FOLDER NAME HOST:PORT [LEASE_MS]
 *
 * Leaves register by the real protocol, from `replcore leaf` or examples/c/leaf.c. Prints a line for
 * each change:
 *
 *   + NAME ADDRESS   is registered and linked; the address is - when it gave none
 *   - NAME           its link has ended; its lease runs on
 *   ! NAME           it has not renewed: its lease has ended
 *
 * Each line on standard input is a question, answered by the table, "NAME here|away|gone SECONDS" with the
 * seconds that the lease still runs, and a line with a dot; the end of standard input ends the hub, with
 * a good-bye. Who is registered is kept in FOLDER, so that a hub that was killed knows whom to expect.
 *
 * It keeps no messages: leaves that post go on keeping theirs. A hub that does has a log as in leaf.c,
 * a queue for each leaf, and asks replcore_dispatch_record which queues a record goes to. */

#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "links.h"

enum { LINKS_MAX = 32, LEAVES_MAX = 128, BUFFER = 131072 };

static void *memory; /* of the node */
static replcore_machine *node;
static struct links links;
static const char *folder;
static struct { uint64_t instance; uint32_t epoch, reserved; } life;

static void tell(char sign, uint64_t leaf)
{
  replcore_lease lease;
  if (replcore_node_lease(node, leaf, &lease) != REPLCORE_STATUS_OK) return;
  if (sign == '+') printf("+ %s %s\n", lease.name, lease.address[0] ? lease.address : "-");
  else printf("%c %s\n", sign, lease.name);
  fflush(stdout);
}

static void list(void)
{
  replcore_lease lease;
  uint64_t now = now_us();
  for (uint32_t place = 0; replcore_node_lease_next(node, &place, &lease) == REPLCORE_STATUS_OK;) {
    const char *state = !lease.is_held ? "gone" : lease.link == REPLCORE_NO_LINK ? "away" : "here";
    uint64_t left = lease.is_held && lease.until_us > now ? (lease.until_us - now) / 1000000 : 0;
    printf("%s %s %" PRIu64 "\n", lease.name, state, left);
  }
  printf(".\n");
  fflush(stdout);
}

static void event(const replcore_output *o)
{
  if (o->event == REPLCORE_NODE_EVENT_LEAF_UP) tell('+', o->node);
  if (o->event == REPLCORE_NODE_EVENT_LEAF_DOWN) tell('-', o->node);
  if (o->event == REPLCORE_NODE_EVENT_LEASE_EXPIRED) tell('!', o->node);
  if (o->event == REPLCORE_NODE_EVENT_PEER_REFUSED) fprintf(stderr, "hub: refused (%u)\n", o->reason);
}

/* The registration of a leaf is a file, named by the leaf's id. */
static void file_name(uint64_t leaf, char *name) { sprintf(name, "leaf-%016" PRIx64, leaf); }

static void persist(const replcore_output *o, const uint8_t *record)
{
  char name[32];
  file_name(o->node, name);
  if (file_store(folder, name, record, o->len)) check("persisted", replcore_handle_persisted(node, now_us(), o->token));
  else check("failed", replcore_handle_failed(node, now_us(), o->token, REPLCORE_FAILURE_IO));
}

static void forget(uint64_t leaf)
{
  char name[32], path[512];
  file_name(leaf, name);
  snprintf(path, sizeof path, "%s/%s", folder, name);
  unlink(path);
}

/* No messages are kept here: none was taken before, none is in any queue. */
static void answer(const replcore_output *o)
{
  uint64_t now = now_us();
  switch (o->kind) {
  case REPLCORE_OUTPUT_KIND_ASK_INBOUND:
    check("inbound", replcore_handle_answer_inbound(node, now, o->token, o->epoch, 0, 0));
    break;
  case REPLCORE_OUTPUT_KIND_ASK_OUTBOUND:
    check("outbound", replcore_handle_answer_outbound(node, now, o->token, life.epoch, 0, 0, 0));
    break;
  case REPLCORE_OUTPUT_KIND_ASK_PLACE: check("place", replcore_handle_answer_place(node, now, o->token, 0)); break;
  default: check("denied", replcore_handle_answer_denied(node, now, o->token));
  }
}

static void refuse(const replcore_output *o)
{
  check("refused", replcore_handle_refused(node, now_us(), o->link, o->stream, REPLCORE_FAILURE_FULL));
}

static void take(const replcore_output *o, const uint8_t *bytes)
{
  (void)bytes;
  refuse(o);
}

/* Does what the node orders until it is idle; returns when to wake it. */
static uint64_t drain(void)
{
  static uint8_t buf[REPLCORE_POLL_BYTES_MAX];
  replcore_output o;
  for (;;) {
    check("poll", replcore_poll(node, buf, sizeof buf, &o));
    if (o.kind == REPLCORE_OUTPUT_KIND_IDLE) return o.next;
    if (link_order(&links, &o, buf, "")) continue;
    switch (o.kind) {
    case REPLCORE_OUTPUT_KIND_EVENT: event(&o); break;
    case REPLCORE_OUTPUT_KIND_PERSIST: persist(&o, buf); break;
    case REPLCORE_OUTPUT_KIND_FORGET: forget(o.node); break;
    case REPLCORE_OUTPUT_KIND_ASK_INBOUND:
    case REPLCORE_OUTPUT_KIND_ASK_OUTBOUND:
    case REPLCORE_OUTPUT_KIND_ASK_PLACE:
    case REPLCORE_OUTPUT_KIND_ASK_SUBSCRIBE: answer(&o); break;
    case REPLCORE_OUTPUT_KIND_TAKE_SKIP:
    case REPLCORE_OUTPUT_KIND_PLACE: refuse(&o); break;
    case REPLCORE_OUTPUT_KIND_RELEASE: break;
    default: fprintf(stderr, "hub: order %u is beyond this program\n", o.kind); exit(1);
    }
  }
}

/* Gives back whom an earlier life has registered; each has one full lease from now. */
static void restore(void)
{
  uint8_t record[REPLCORE_POLL_BYTES_MAX + 4];
  DIR *files = opendir(folder);
  if (files == NULL) die(folder);
  for (struct dirent *entry; (entry = readdir(files)) != NULL;) {
    uint64_t leaf;
    int end = 0;
    if (sscanf(entry->d_name, "leaf-%16" SCNx64 "%n", &leaf, &end) != 1 || entry->d_name[end] != 0) continue;
    size_t len = file_load(folder, entry->d_name, record, sizeof record);
    check(entry->d_name, replcore_restore(node, REPLCORE_KEY_REGISTRATION, leaf, record, len));
  }
  closedir(files);
}

/* Each start begins a new life, before anybody is told of it. */
static void begin_life(void)
{
  uint8_t record[sizeof life + 4];
  uint64_t number = random_number();
  if (file_load(folder, "life", record, sizeof record) == sizeof life) memcpy(&life, record, sizeof life);
  life.epoch = life.instance == 0 ? replcore_epoch_first(number >> 32) : replcore_epoch_next(life.epoch, number >> 32);
  if (life.instance == 0) life.instance = number;
  if (!file_store(folder, "life", &life, sizeof life)) die(folder);
}

static void begin(const char *name, uint32_t lease_ms)
{
  replcore_node_config config;
  memset(&config, 0, sizeof config);
  config.struct_size = sizeof config;
  config.name = name, config.instance = life.instance, config.epoch = life.epoch;
  config.seed = random_number();
  config.links_max = LINKS_MAX, config.leaves_max = LEAVES_MAX;
  config.lease_ms_max = lease_ms, config.lease_ms_min = lease_ms < 1000 ? lease_ms : 1000;
  size_t size = replcore_node_memory(&config);
  memory = malloc(size + 1);
  check("node", replcore_node_init(memory, size, &config, &node));
  restore();
  links.machine = node, links.drain = drain, links.take = take;
  links_init(&links, LINKS_MAX, BUFFER, BUFFER);
  check("start", replcore_handle_timeout(node, now_us()));
}

/* Answers what was asked; 0 at the end of the input. */
static int read_questions(void)
{
  char line[256];
  ssize_t n = read(0, line, sizeof line);
  for (ssize_t i = 0; i < n; i++)
    if (line[i] == '\n') list();
  return n != 0;
}

int main(int argc, char **argv)
{
  program_name = "hub";
  if (argc != 4 && argc != 5) {
    fprintf(stderr, "usage: hub FOLDER NAME HOST:PORT [LEASE_MS]\n");
    return 2;
  }
  if (replcore_abi() != REPLCORE_ABI) { fprintf(stderr, "hub: library and header differ\n"); return 1; }
  folder = argv[1];
  begin_life();
  begin(argv[2], argc == 5 ? (uint32_t)strtoul(argv[4], NULL, 10) : 900000);
  int listener = listen_at(argv[3]), running = 1;
  while (running || links_open(&links)) {
    struct pollfd input = { running ? 0 : -1, POLLIN, 0 };
    links_wait(&links, running ? listener : -1, &input, 1);
    if (input.revents != 0 && !read_questions()) {
      running = 0;
      check("stop", replcore_node_stop(node, now_us()));
      drain();
    }
  }
  free(memory); /* a machine that is done with is memory as any other */
  return 0;
}
