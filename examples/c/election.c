/* A member of a cluster in C: elects a leader among processes, on poll(2) and two small files.
 *
 *   election FOLDER NAME NAME=HOST:PORT...
 *
 * The members are all that are given, NAME among them; each is started with the same list and a FOLDER
 * of its own. Prints a line whenever somebody else leads: "TERM LEADER", or "TERM -" for nobody, with
 * " *" behind it while it is this process. A line "resign" on standard input has it lead no more; the
 * end of standard input ends it, with a hand-over. */

#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "links.h"

enum { PEERS_MAX = 8, LINKS_MAX = 2 * PEERS_MAX, BUFFER = 8192 };

static replcore_machine *member;
static struct links links;
static const char *folder, *own_name;
static uint64_t leads_until; /* what whoever asks "do I lead?" compares with the clock */

static int leads(void) { return now_us() < leads_until; }

/* The file of what has to survive. A member that has forgotten its vote may vote twice. */
static const char *name_of(uint32_t key) { return key == REPLCORE_KEY_BALLOT ? "ballot" : "members"; }

/* ---- Orders ---- */

static void tell_leader(void)
{
  replcore_leader leader;
  replcore_peer peer;
  int known = replcore_member_leader(member, &leader) == REPLCORE_STATUS_OK
              && replcore_member_peer(member, leader.node, &peer) == REPLCORE_STATUS_OK;
  printf("%" PRIu64 " %s%s\n", replcore_member_term(member), known ? peer.name : "-", leads() ? " *" : "");
  fflush(stdout);
}

static void persist(const replcore_output *o, const uint8_t *record)
{
  if (file_store(folder, name_of(o->key), record, o->len)) check("persisted", replcore_handle_persisted(member, now_us(), o->token));
  else check("failed", replcore_handle_failed(member, now_us(), o->token, REPLCORE_FAILURE_IO));
}

static void event(const replcore_output *o)
{
  if (o->event == REPLCORE_MEMBER_EVENT_BECAME_LEADER || o->event == REPLCORE_MEMBER_EVENT_LOST_LEADERSHIP
      || o->event == REPLCORE_MEMBER_EVENT_LEADER_CHANGED) tell_leader();
  if (o->event == REPLCORE_MEMBER_EVENT_REFUSED) fprintf(stderr, "election: refused (%u)\n", o->reason);
}

/* Does what the member orders until it is idle; returns when to wake it. */
static uint64_t drain(void)
{
  static uint8_t buf[REPLCORE_POLL_BYTES_MAX];
  char address[REPLCORE_NAME_BYTES];
  uint64_t node;
  replcore_output o;
  for (;;) {
    /* Before anything else is done. */
    leads_until = replcore_member_leader_until(member);
    check("poll", replcore_poll(member, buf, sizeof buf, &o));
    if (o.kind == REPLCORE_OUTPUT_KIND_IDLE) return o.next;
    if (o.kind == REPLCORE_OUTPUT_KIND_DIAL)
      check("dial", replcore_member_dial_target(member, o.dial, address, sizeof address, &node));
    if (link_order(&links, &o, buf, address)) continue;
    switch (o.kind) {
    case REPLCORE_OUTPUT_KIND_PERSIST: persist(&o, buf); break;
    case REPLCORE_OUTPUT_KIND_EVENT: event(&o); break;
    default: fprintf(stderr, "election: order %u is beyond this program\n", o.kind); exit(1);
    }
  }
}

/* 0 at the end of the input. */
static int read_orders(void)
{
  char line[64];
  ssize_t n = read(0, line, sizeof line);
  if (n > 0 && memchr(line, 'r', (size_t)n) != NULL) {
    int32_t status = replcore_member_resign(member, now_us());
    if (status != REPLCORE_STATUS_OK) fprintf(stderr, "election: resign: %s\n", replcore_status_text(status));
    drain();
  }
  return n != 0;
}

/* ---- Start ---- */

/* Makes the member of the list and what was stored; returns its listening socket. */
static int begin(int count, char **list)
{
  replcore_member_config config;
  uint8_t record[REPLCORE_POLL_BYTES_MAX + 4];
  char *own = NULL;
  memset(&config, 0, sizeof config);
  if (file_load(folder, "instance", record, sizeof record) == sizeof config.instance) memcpy(&config.instance, record, sizeof config.instance);
  else {
    config.instance = random_number();
    if (!file_store(folder, "instance", &config.instance, sizeof config.instance)) die(folder);
  }
  config.struct_size = sizeof config;
  config.seed = random_number();
  config.name = own_name, config.cluster = "election";
  config.peers_max = PEERS_MAX, config.links_max = LINKS_MAX;
  for (int i = 0; i < count; i++) {
    char *address = strchr(list[i], '=');
    if (address == NULL) die("give each member as NAME=HOST:PORT");
    *address++ = 0;
    if (strcmp(list[i], own_name) == 0) own = address;
  }
  if (own == NULL) die("the own name is not in the list");
  config.address = own;
  size_t memory = replcore_member_memory(&config);
  check("member", replcore_member_init(malloc(memory + 1), memory, &config, &member));
  for (int i = 0; i < count; i++)
    if (strcmp(list[i], own_name) != 0)
      check(list[i], replcore_member_add_peer(member, list[i], list[i] + strlen(list[i]) + 1, NULL, 0, 1));
  for (uint32_t key = REPLCORE_KEY_BALLOT; key <= REPLCORE_KEY_MEMBERS; key++) {
    size_t len = file_load(folder, name_of(key), record, sizeof record);
    if (len > 0) check("restore", replcore_restore(member, key, 0, record, len));
  }
  links.machine = member, links.drain = drain;
  links_init(&links, LINKS_MAX, BUFFER, BUFFER);
  check("start", replcore_handle_timeout(member, now_us()));
  return listen_at(own);
}

int main(int argc, char **argv)
{
  program_name = "election";
  if (argc < 4 || argc - 3 > PEERS_MAX + 1) {
    fprintf(stderr, "usage: election FOLDER NAME NAME=HOST:PORT...\n");
    return 2;
  }
  if (replcore_abi() != REPLCORE_ABI) { fprintf(stderr, "election: library and header differ\n"); return 1; }
  folder = argv[1], own_name = argv[2];
  int listener = begin(argc - 3, argv + 3), running = 1;
  while (running || links_open(&links)) {
    struct pollfd input = { running ? 0 : -1, POLLIN, 0 };
    links_wait(&links, listener, &input, 1);
    if (input.revents != 0 && !read_orders()) {
      running = 0;
      check("stop", replcore_member_stop(member, now_us()));
      drain();
    }
  }
  return 0;
}
