/* The log: readings that wait for the hub, and one structure with all else that is durable.
 *
 * The flash is two halves, used in turn. A half is a run of batches as docs/wire.md describes them, each
 * on whole words and each counting as a whole or not at all; the number of its segment is how many
 * halves were begun. A batch holds one record or one note of the state. When a half is full, and at each
 * start, what is still wanted goes to the other: that is erased, the records that wait are copied, and
 * last the state. A half counts from then on, so whenever the power fails one of them is whole.
 *
 * It is simpler than the log of the Rust firmware (`replcore::log::flash`), which takes pages in turn,
 * copies nothing and does not start a page at each reset: flash lasts longer there. */
#ifndef LOG_H
#define LOG_H

#include <stddef.h>
#include <stdint.h>

#include "replcore.h"

enum { RECORD_BYTES_MAX = 128, WAITING_MAX = 64, LIVES_MAX = 3, PLACES_MAX = 4 };

/* How far an incoming stream was taken. */
struct place { uint64_t owner, queue, position; uint32_t epoch, message_class; };

/* As it lies in memory, so it lies in flash. */
struct state {
  uint64_t instance;             /* drawn when the log was made */
  uint64_t released;             /* records before are acknowledged */
  uint64_t base;                 /* the number of the first record of this life of the log */
  uint64_t commands;             /* of the application: carried out, and a digest of them in order */
  uint32_t epoch, digest;
  uint32_t target, reserved;     /* readings to post in all */
  replcore_life lives[LIVES_MAX]; /* earlier ones of which something may be wanted; end 0 for none */
  struct place places[PLACES_MAX]; /* owner 0 for none */
};

/* The newest in flash, with what was acknowledged since. */
extern struct state state;
/* Records ever in the queue; the number of the next. */
extern uint64_t log_next;

/* Finds the log, or makes one where there is none, and begins a new life of it, so that no number is ever
 * given twice. */
void log_open(uint64_t random);
/* Adds a record, at most RECORD_BYTES_MAX long: durable when this returns. 0 when WAITING_MAX wait. */
int log_append(const uint8_t *record, size_t len);
/* Makes `next` the state: durable when this returns. */
void log_store(const struct state *next);
/* A record that waits, and how long it is; NULL when that number does not. */
const uint8_t *log_record(uint64_t number, size_t *len);
/* How far that stream was taken; NULL when it never was. */
struct place *log_place(struct state *of, uint64_t owner, uint64_t queue, uint32_t message_class);
/* Sets the place of its stream, in memory; of more than PLACES_MAX the one that came first is forgotten. */
void log_set_place(struct state *of, const struct place *place);

void check(const char *what, int32_t status);

#endif
