/* What the examples share: ends with a reason, the clock, and the connections of a machine on poll(2). */
#ifndef LINKS_H
#define LINKS_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>

#include "replcore.h"

enum { EXTRA_MAX = 4 };

/* A connection; its place in the array is its number. */
struct link {
  int fd;                /* -1 for none */
  int fresh;             /* begun since poll(2) was asked: what it has told is not of this one */
  int dialling;          /* the connection is being made, for the place `dial` */
  uint32_t dial;
  uint8_t *in, *out;
  size_t in_len, out_len;
  replcore_output order; /* bytes to take or skip that are not all there; of kind 0 when there are none */
};

struct links {
  replcore_machine *machine;
  struct link *all;
  uint32_t count;
  size_t in_size, out_size;
  uint64_t (*drain)(void); /* does what the machine orders until it is idle; answers when to wake it */
  void (*take)(const replcore_output *order, const uint8_t *bytes); /* all bytes of an order are there */
  void (*closed)(uint32_t number);                                  /* NULL when that is of no interest */
};

/* The name to put before what is said of failures. */
extern const char *program_name;
void die(const char *what);
void check(const char *what, int32_t status);
uint64_t now_us(void);  /* on a clock that never goes back */
uint64_t wall_ms(void); /* since 1970 */
uint64_t random_number(void);

void links_init(struct links *links, uint32_t count, size_t in_size, size_t out_size);
/* Whether any connection stands. */
int links_open(const struct links *links);
/* A socket that listens at HOST:PORT. */
int listen_at(const char *address);

/* Fulfils an order DIAL, SEND, TAKE_RECORDS, TAKE_CALL, SKIP_BYTES, RESUME or HANGUP; 0 for others. */
int link_order(struct links *links, const replcore_output *order, const uint8_t *buf, const char *address);

/* Waits for the connections, the listener (-1 for none), the others and time; does what came. `revents` of
 * `extra` tell what came of the others. */
void links_wait(struct links *links, int listener, struct pollfd *extra, uint32_t extras);

#endif
