/* Connections of a machine on poll(2); see links.h. */

#define _POSIX_C_SOURCE 200809L
#include "links.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LINKS_MAX = 64, ADDRESS_BYTES = 300 };

const char *program_name = "example";

void die(const char *what)
{
  fprintf(stderr, "%s: %s: %s\n", program_name, what, strerror(errno));
  exit(1);
}

void check(const char *what, int32_t status)
{
  if (status == REPLCORE_STATUS_OK) return;
  fprintf(stderr, "%s: %s: %s\n", program_name, what, replcore_status_text(status));
  exit(1);
}

uint64_t now_us(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t wall_ms(void)
{
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t random_number(void)
{
  uint64_t number = 0;
  int fd = open("/dev/urandom", O_RDONLY);
  if (fd < 0 || read(fd, &number, sizeof number) != sizeof number) die("/dev/urandom");
  close(fd);
  return number | 1;
}

void links_init(struct links *links, uint32_t count, size_t in_size, size_t out_size)
{
  if (count > LINKS_MAX) count = LINKS_MAX;
  links->count = count;
  links->in_size = in_size, links->out_size = out_size;
  links->all = (struct link *)calloc(links->count, sizeof *links->all);
  for (uint32_t i = 0; links->all != NULL && i < links->count; i++) {
    struct link *l = &links->all[i];
    l->fd = -1;
    l->in = (uint8_t *)malloc(in_size), l->out = (uint8_t *)malloc(out_size);
    if (l->in == NULL || l->out == NULL) die("memory");
  }
  if (links->all == NULL) die("memory");
}

int links_open(const struct links *links)
{
  for (uint32_t i = 0; i < links->count; i++)
    if (links->all[i].fd >= 0 && !links->all[i].dialling) return 1;
  return 0;
}

static struct addrinfo *resolve(const char *address)
{
  char host[ADDRESS_BYTES];
  struct addrinfo hints, *found = NULL;
  snprintf(host, sizeof host, "%s", address);
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  char *port = strrchr(host, ':');
  if (port == NULL) return NULL;
  *port++ = 0;
  return getaddrinfo(host, port, &hints, &found) == 0 ? found : NULL;
}

int listen_at(const char *address)
{
  struct addrinfo *found = resolve(address);
  int one = 1, fd = found ? socket(found->ai_family, SOCK_STREAM, 0) : -1;
  if (fd < 0) die(address);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 16) != 0) die(address);
  freeaddrinfo(found);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

static void link_close(struct links *links, uint32_t number)
{
  struct link *l = &links->all[number];
  int was_dialling = l->dialling;
  close(l->fd);
  l->fd = -1, l->dialling = 0;
  l->in_len = l->out_len = 0, l->order.kind = 0;
  if (links->closed != NULL) links->closed(number);
  if (was_dialling) check("dial failed", replcore_handle_dial_failed(links->machine, now_us(), l->dial));
  else check("link down", replcore_handle_link_down(links->machine, now_us(), number));
}

static void link_up(struct links *links, uint32_t number, uint32_t dialed)
{
  links->all[number].dialling = 0;
  check("link up", replcore_handle_link_up(links->machine, now_us(), number, dialed, REPLCORE_TRANSPORT_STREAM, 0));
  check("writable", replcore_handle_writable(links->machine, now_us(), number, (uint32_t)links->out_size));
}

/* A number for the new connection `fd`; -1, and it is closed, when all are taken. */
static int link_begin(struct links *links, int fd)
{
  for (uint32_t i = 0; fd >= 0 && i < links->count; i++) {
    if (links->all[i].fd >= 0) continue;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    links->all[i].fd = fd, links->all[i].fresh = 1;
    return (int)i;
  }
  if (fd >= 0) close(fd);
  return -1;
}

/* poll(2) tells when it is through. */
static void link_dial(struct links *links, uint32_t place, const char *address)
{
  struct addrinfo *found = resolve(address);
  int number = link_begin(links, found ? socket(found->ai_family, SOCK_STREAM, 0) : -1);
  if (number < 0) check("dial failed", replcore_handle_dial_failed(links->machine, now_us(), place));
  else {
    struct link *l = &links->all[number];
    l->dialling = 1, l->dial = place;
    if (connect(l->fd, found->ai_addr, found->ai_addrlen) != 0 && errno != EINPROGRESS)
      link_close(links, (uint32_t)number);
  }
  if (found) freeaddrinfo(found);
}

int link_order(struct links *links, const replcore_output *o, const uint8_t *buf, const char *address)
{
  struct link *l = &links->all[o->link];
  switch (o->kind) {
  case REPLCORE_OUTPUT_KIND_DIAL: link_dial(links, o->dial, address); return 1;
  case REPLCORE_OUTPUT_KIND_SEND: memcpy(l->out + l->out_len, buf, o->len); l->out_len += o->len; return 1;
  case REPLCORE_OUTPUT_KIND_TAKE_RECORDS:
  case REPLCORE_OUTPUT_KIND_TAKE_CALL:
  case REPLCORE_OUTPUT_KIND_SKIP_BYTES: l->order = *o; return 1;
  case REPLCORE_OUTPUT_KIND_RESUME: return 1; /* whoever reads offers again */
  case REPLCORE_OUTPUT_KIND_HANGUP:
    if (l->out_len > 0 && write(l->fd, l->out, l->out_len) < 0) { /* the last words are lost */ }
    link_close(links, o->link);
    return 1;
  default: return 0;
  }
}

/* Gives the machine what came, as far as it takes it. */
static void link_offer(struct links *links, uint32_t number)
{
  struct link *l = &links->all[number];
  size_t at = 0, taken;
  while (l->fd >= 0 && !l->fresh) {
    if (l->order.kind == 0) {
      check("recv", replcore_handle_recv(links->machine, now_us(), number, l->in + at, l->in_len - at, &taken));
      at += taken;
      links->drain();
      if (taken == 0 && l->order.kind == 0) break;
    } else {
      replcore_output order = l->order;
      if (l->in_len - at < order.len) break;
      l->order.kind = 0;
      if (order.kind == REPLCORE_OUTPUT_KIND_TAKE_RECORDS) links->take(&order, l->in + at);
      at += order.len;
      links->drain();
    }
  }
  if (l->fd < 0 || l->fresh) return;
  l->in_len -= at;
  memmove(l->in, l->in + at, l->in_len);
}

static void link_read(struct links *links, uint32_t number)
{
  struct link *l = &links->all[number];
  ssize_t n = read(l->fd, l->in + l->in_len, links->in_size - l->in_len);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) link_close(links, number);
  else if (n > 0) {
    l->in_len += (size_t)n;
    link_offer(links, number);
  }
}

static void link_write(struct links *links, uint32_t number)
{
  struct link *l = &links->all[number];
  if (l->dialling) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) link_close(links, number);
    else link_up(links, number, l->dial);
    return;
  }
  ssize_t n = write(l->fd, l->out, l->out_len);
  if (n < 0 && errno != EAGAIN && errno != EINTR) link_close(links, number);
  else if (n > 0) {
    l->out_len -= (size_t)n;
    memmove(l->out, l->out + n, l->out_len);
    check("writable", replcore_handle_writable(links->machine, now_us(), number, (uint32_t)n));
  }
}

/* What the descriptors are to tell: of the connections, the listener and the others. */
static void watch(struct links *links, int listener, const struct pollfd *extra, uint32_t extras, struct pollfd *fds)
{
  for (uint32_t i = 0; i < links->count; i++) {
    struct link *l = &links->all[i];
    l->fresh = 0;
    fds[i].fd = l->fd;
    fds[i].events = (short)((l->dialling ? 0 : POLLIN) | (l->dialling || l->out_len > 0 ? POLLOUT : 0));
  }
  fds[links->count].fd = listener, fds[links->count].events = POLLIN;
  memcpy(fds + links->count + 1, extra, extras * sizeof *extra);
}

void links_wait(struct links *links, int listener, struct pollfd *extra, uint32_t extras)
{
  struct pollfd fds[LINKS_MAX + 1 + EXTRA_MAX];
  links->drain();
  for (uint32_t i = 0; i < links->count; i++)
    if (links->all[i].fd >= 0 && !links->all[i].dialling && links->all[i].out_len > 0) link_write(links, i);
  uint64_t wake = links->drain(), now = now_us(), left = wake > now ? (wake - now + 999) / 1000 : 0;
  watch(links, listener, extra, extras, fds);
  int found = poll(fds, links->count + 1 + extras, left > 1000 ? 1000 : (int)left);
  if (found < 0 && errno != EINTR) die("poll");
  for (uint32_t i = 0; i < extras; i++) extra[i].revents = found > 0 ? fds[links->count + 1 + i].revents : 0;
  /* What has come goes before the time that has passed. */
  for (uint32_t i = 0; found > 0 && i < links->count; i++) {
    struct link *l = &links->all[i];
    if (fds[i].revents == 0 || l->fd < 0 || l->fresh) continue;
    if (l->dialling || fds[i].revents & POLLOUT) link_write(links, i);
    if (l->fd >= 0 && !l->dialling && fds[i].revents & ~POLLOUT) link_read(links, i);
    links->drain();
  }
  if (found > 0 && fds[links->count].revents != 0) {
    int number = link_begin(links, accept(listener, NULL, NULL));
    if (number >= 0) link_up(links, (uint32_t)number, REPLCORE_NOT_DIALED);
  }
  check("time", replcore_handle_timeout(links->machine, now_us()));
  links->drain();
}
