/* Small files and a log; see files.h. */

#define _POSIX_C_SOURCE 200809L
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "links.h"

enum { PATH_BYTES = 512 };

int file_store(const char *folder, const char *name, const void *data, size_t len)
{
  char path[PATH_BYTES], fresh[PATH_BYTES];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  snprintf(fresh, sizeof fresh, "%s/%s.new", folder, name);
  uint32_t crc = replcore_crc32c((const uint8_t *)data, len);
  int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0600), dir = open(folder, O_RDONLY);
  int done = fd >= 0 && dir >= 0 && write(fd, data, len) == (ssize_t)len && write(fd, &crc, 4) == 4
             && fsync(fd) == 0 && rename(fresh, path) == 0 && fsync(dir) == 0;
  if (fd >= 0) close(fd);
  if (dir >= 0) close(dir);
  return done;
}

size_t file_load(const char *folder, const char *name, void *data, size_t room)
{
  char path[PATH_BYTES];
  uint32_t crc;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  int fd = open(path, O_RDONLY);
  if (fd < 0 && errno == ENOENT) return 0;
  ssize_t len = fd < 0 ? -1 : read(fd, data, room);
  if (len < 4) die(path);
  close(fd);
  memcpy(&crc, (uint8_t *)data + len - 4, 4);
  if (crc != replcore_crc32c((const uint8_t *)data, (size_t)len - 4)) {
    fprintf(stderr, "%s: %s is damaged: start again with a new name and folder\n", program_name, path);
    exit(1);
  }
  return (size_t)len - 4;
}

void log_open(struct log_file *log, const char *path, void (*read)(const uint8_t *entries, size_t len, off_t at))
{
  log->fd = open(path, O_RDWR | O_CREAT, 0644);
  off_t size = log->fd < 0 ? -1 : lseek(log->fd, 0, SEEK_END);
  uint8_t *bytes = size < 0 ? NULL : (uint8_t *)malloc((size_t)size + 1);
  if (bytes == NULL || pread(log->fd, bytes, (size_t)size, 0) != size) die(path);
  replcore_batch b;
  int32_t status;
  while ((status = replcore_batch_read(bytes + log->end, (size_t)(size - log->end), 1, &b)) == 0) {
    off_t at = log->end + REPLCORE_BATCH_HEADER_BYTES;
    read(bytes + at, b.entries_len, at);
    log->end = at + b.entries_len, log->records += b.records;
  }
  free(bytes);
  if (status == REPLCORE_STATUS_FORMAT) check(path, status);
  if (log->end < size && ftruncate(log->fd, log->end) != 0) die("cutting the torn end of the log");
}

uint8_t *log_entry(struct log_file *log, size_t at) { return log->batch + REPLCORE_BATCH_HEADER_BYTES + at; }

off_t log_place(const struct log_file *log, size_t at)
{
  return log->end + REPLCORE_BATCH_HEADER_BYTES + (off_t)at;
}

size_t log_note(struct log_file *log, size_t at, uint32_t kind, const void *payload, size_t len)
{
  size_t written;
  check("note", replcore_entry_encode(kind, (const uint8_t *)payload, len, log_entry(log, at), NOTE_BYTES, &written));
  return at + written;
}

void log_append(struct log_file *log, size_t len, uint32_t records)
{
  replcore_batch head = { 1, log->records, (uint32_t)len, records };
  check("batch", replcore_batch_encode(&head, log->batch, sizeof log->batch));
  len += REPLCORE_BATCH_HEADER_BYTES;
  for (size_t done = 0; done < len;) {
    ssize_t n = pwrite(log->fd, log->batch + done, len - done, log->end + (off_t)done);
    if (n < 0) die("writing the log");
    done += (size_t)n;
  }
  if (fdatasync(log->fd) != 0) die("syncing the log");
  log->end += (off_t)len, log->records += records;
}
