/* Machines in threads of their own, a leaf and a member in each, for the thread sanitizer: the library
 * has no state that they could share. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replcore.h"

enum { THREADS = 4, TURNS = 2000 };

static void check(int32_t status)
{
  if (status == REPLCORE_STATUS_OK) return;
  fprintf(stderr, "threads: %s\n", replcore_status_text(status));
  abort();
}

/* Does the orders of one turn, or as much of them as matters here; returns when to go on. */
static uint64_t drain(replcore_machine *machine, uint64_t now, int *up)
{
  uint8_t buf[REPLCORE_POLL_BYTES_MAX];
  replcore_output output;
  for (;;) {
    check(replcore_poll(machine, buf, sizeof buf, &output));
    switch (output.kind) {
    case REPLCORE_OUTPUT_KIND_IDLE: return output.next;
    case REPLCORE_OUTPUT_KIND_PERSIST: check(replcore_handle_persisted(machine, now, output.token)); break;
    case REPLCORE_OUTPUT_KIND_DIAL:
      check(replcore_handle_link_up(machine, now, 0, output.dial, REPLCORE_TRANSPORT_STREAM, 0));
      check(replcore_handle_writable(machine, now, 0, 65536));
      *up = 1;
      break;
    case REPLCORE_OUTPUT_KIND_HANGUP:
      check(replcore_handle_link_down(machine, now, 0));
      *up = 0;
      break;
    default: break;
    }
  }
}

static void run(replcore_machine *machine, uint64_t seed)
{
  uint64_t now = 1;
  int up = 0;
  for (int turn = 0; turn < TURNS; turn++) {
    uint64_t wake;
    size_t taken;
    check(replcore_handle_timeout(machine, now));
    wake = drain(machine, now, &up);
    if (up && turn % 7 == 0) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      check(replcore_handle_recv(machine, now, 0, (const uint8_t *)&seed, sizeof seed, &taken));
      drain(machine, now, &up);
    }
    now = wake == REPLCORE_NEVER ? now + 1000 : wake;
  }
}

static void *thread(void *number)
{
  char name[16];
  replcore_leaf_config leaf;
  replcore_member_config member;
  replcore_machine *machine;
  snprintf(name, sizeof name, "thread-%d", *(int *)number);
  memset(&leaf, 0, sizeof leaf);
  leaf.struct_size = sizeof leaf, leaf.name = name, leaf.instance = 1, leaf.epoch = 1;
  leaf.seed = (uint64_t)*(int *)number;
  memset(&member, 0, sizeof member);
  member.struct_size = sizeof member, member.name = name, member.cluster = "threads", member.instance = 1;
  member.seed = leaf.seed;

  void *memory = malloc(replcore_leaf_memory());
  check(replcore_leaf_init(memory, replcore_leaf_memory(), &leaf, &machine));
  run(machine, leaf.seed);
  free(memory);

  size_t size = replcore_member_memory(&member);
  memory = malloc(size);
  check(replcore_member_init(memory, size, &member, &machine));
  check(replcore_member_add_peer(machine, "other", "127.0.0.1:1", NULL, 0, 1));
  run(machine, leaf.seed);
  free(memory);
  return NULL;
}

int main(void)
{
  pthread_t threads[THREADS];
  int numbers[THREADS];
  for (int i = 0; i < THREADS; i++) {
    numbers[i] = i;
    if (pthread_create(&threads[i], NULL, thread, &numbers[i]) != 0) return 1;
  }
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  return 0;
}
