/* What the examples keep: small files that are replaced as a whole, and a log. */
#ifndef FILES_H
#define FILES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "replcore.h"

enum { NOTE_BYTES = 64, BATCH_MAX = 196608 };

/* Replaces the file FOLDER/NAME as a whole; 1 when it survives the loss of power. */
int file_store(const char *folder, const char *name, const void *data, size_t len);
/* What the file holds; 0 when there is none. A damaged one ends the program. */
size_t file_load(const char *folder, const char *name, void *data, size_t room);

/* A log as docs/wire.md describes it: a run of batches, each written with one call and synced, each
 * counting as a whole or not at all. */
struct log_file {
  int fd;
  off_t end;
  uint64_t records;         /* in all batches */
  uint8_t batch[BATCH_MAX]; /* the batch being made: its entries begin behind its head */
};

/* Opens the log and gives `read` the entries of each batch and where they stand. Cuts off a batch at the
 * end that is not whole, which a crash has torn. */
void log_open(struct log_file *log, const char *path, void (*read)(const uint8_t *entries, size_t len, off_t at));
/* The place in the batch being made that is `at` behind its head. */
uint8_t *log_entry(struct log_file *log, size_t at);
/* Where on the file that place will be. */
off_t log_place(const struct log_file *log, size_t at);
/* Adds a note to the batch being made and answers where the batch then ends. */
size_t log_note(struct log_file *log, size_t at, uint32_t kind, const void *payload, size_t len);
/* Writes and syncs the batch, of `len` bytes of entries. */
void log_append(struct log_file *log, size_t len, uint32_t records);

#endif
