/* A member of a cluster in C: elects a leader among processes, on poll(2) and two small files.
 *
 *   election FOLDER NAME NAME=HOST:PORT...
 *
 * The members are all that are given, NAME among them; each is started with the same list and a FOLDER
 * of its own. Prints a line whenever somebody else leads: "TERM LEADER", or "TERM -" for nobody, with
 * " *" behind it while it is this process. A line "resign" on standard input has it lead no more; the
 * end of standard input ends it, with a hand-over. */

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

enum { PEERS_MAX = 8, LINKS_MAX = 2 * PEERS_MAX, BUFFER = 8192 };

/* A connection, by its number. `dialling` while the connection is being made. */
static struct link {
  int fd, dialling;
  uint32_t dial;
  uint8_t in[BUFFER], out[BUFFER];
  size_t in_len, out_len;
} links[LINKS_MAX];

static replcore_machine *member;
static const char *folder, *own_name;
static uint64_t leads_until; /* what whoever asks "do I lead?" compares with the clock */

static void die(const char *what)
{
  fprintf(stderr, "election: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void check(const char *what, int32_t status)
{
  if (status == REPLCORE_STATUS_OK) return;
  fprintf(stderr, "election: %s: %s\n", what, replcore_status_text(status));
  exit(1);
}

static uint64_t now_us(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int leads(void) { return now_us() < leads_until; }

/* ---- What has to survive ---- */

static void path_of(uint32_t key, const char *end, char *path, size_t size)
{
  const char *name = key == REPLCORE_KEY_BALLOT ? "ballot" : key == REPLCORE_KEY_MEMBERS ? "members" : "instance";
  snprintf(path, size, "%s/%s%s", folder, name, end);
}

/* Replaces the file of that key as a whole; back when it survives the loss of power. */
static int store(uint32_t key, const void *data, size_t len)
{
  char path[512], fresh[512];
  path_of(key, "", path, sizeof path);
  path_of(key, ".new", fresh, sizeof fresh);
  uint32_t crc = replcore_crc32c((const uint8_t *)data, len);
  int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0600), dir = open(folder, O_RDONLY);
  int done = fd >= 0 && dir >= 0 && write(fd, data, len) == (ssize_t)len && write(fd, &crc, 4) == 4
             && fsync(fd) == 0 && rename(fresh, path) == 0 && fsync(dir) == 0;
  if (fd >= 0) close(fd);
  if (dir >= 0) close(dir);
  return done;
}

/* What the file of that key holds; 0 when there is none. A damaged one is not passed over: a member
 * that has forgotten its vote may vote twice. */
static size_t load(uint32_t key, uint8_t *data, size_t room)
{
  char path[512];
  uint32_t crc;
  path_of(key, "", path, sizeof path);
  int fd = open(path, O_RDONLY);
  if (fd < 0 && errno == ENOENT) return 0;
  ssize_t len = fd < 0 ? -1 : read(fd, data, room);
  if (len < 4) die(path);
  close(fd);
  memcpy(&crc, data + len - 4, 4);
  if (crc != replcore_crc32c(data, (size_t)len - 4)) {
    fprintf(stderr, "election: %s is damaged: give this member a new name and folder\n", path);
    exit(1);
  }
  return (size_t)len - 4;
}

/* ---- Links ---- */

static void link_close(uint32_t number)
{
  struct link *l = &links[number];
  int was_dialling = l->dialling;
  close(l->fd);
  l->fd = -1, l->dialling = 0;
  if (was_dialling) check("dial failed", replcore_handle_dial_failed(member, now_us(), l->dial));
  else check("link down", replcore_handle_link_down(member, now_us(), number));
}

static void link_up(uint32_t number, uint32_t dialed)
{
  links[number].dialling = 0;
  check("link up", replcore_handle_link_up(member, now_us(), number, dialed, REPLCORE_TRANSPORT_STREAM, 0));
  check("writable", replcore_handle_writable(member, now_us(), number, BUFFER));
}

/* A number for a new connection, or -1 when all are taken. */
static int link_free(void)
{
  for (int i = 0; i < LINKS_MAX; i++)
    if (links[i].fd < 0) return i;
  return -1;
}

static void link_begin(int number, int fd)
{
  fcntl(fd, F_SETFL, O_NONBLOCK);
  links[number].fd = fd;
  links[number].in_len = links[number].out_len = 0;
}

static struct addrinfo *resolve(char *address)
{
  struct addrinfo hints, *found = NULL;
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_family = AF_INET;
  char *port = strrchr(address, ':');
  if (port == NULL) return NULL;
  *port++ = 0;
  return getaddrinfo(address, port, &hints, &found) == 0 ? found : NULL;
}

static void dial(uint32_t place)
{
  char address[REPLCORE_NAME_BYTES];
  uint64_t node;
  check("dial", replcore_member_dial_target(member, place, address, sizeof address, &node));
  struct addrinfo *found = resolve(address);
  int number = link_free(), fd = found ? socket(found->ai_family, SOCK_STREAM, 0) : -1;
  int failed = fd < 0 || number < 0;
  if (!failed) {
    link_begin(number, fd);
    links[number].dialling = 1, links[number].dial = place;
    failed = connect(fd, found->ai_addr, found->ai_addrlen) != 0 && errno != EINPROGRESS;
    if (failed) links[number].fd = -1;
  }
  if (found) freeaddrinfo(found);
  if (!failed) return; /* poll(2) tells when it is through */
  if (fd >= 0) close(fd);
  check("dial failed", replcore_handle_dial_failed(member, now_us(), place));
}

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
  if (store(o->key, record, o->len)) check("persisted", replcore_handle_persisted(member, now_us(), o->token));
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
  replcore_output o;
  for (;;) {
    /* Before anything else is done. */
    leads_until = replcore_member_leader_until(member);
    check("poll", replcore_poll(member, buf, sizeof buf, &o));
    struct link *l = &links[o.link < LINKS_MAX ? o.link : 0];
    switch (o.kind) {
    case REPLCORE_OUTPUT_KIND_IDLE: return o.next;
    case REPLCORE_OUTPUT_KIND_SEND: memcpy(l->out + l->out_len, buf, o.len); l->out_len += o.len; break;
    case REPLCORE_OUTPUT_KIND_PERSIST: persist(&o, buf); break;
    case REPLCORE_OUTPUT_KIND_DIAL: dial(o.dial); break;
    case REPLCORE_OUTPUT_KIND_HANGUP:
      if (l->out_len > 0 && write(l->fd, l->out, l->out_len) < 0) { /* the last words are lost */ }
      link_close(o.link);
      break;
    case REPLCORE_OUTPUT_KIND_RESUME: break; /* whoever reads offers again */
    case REPLCORE_OUTPUT_KIND_EVENT: event(&o); break;
    default: fprintf(stderr, "election: order %u is beyond this program\n", o.kind); exit(1);
    }
  }
}

static void link_read(uint32_t number)
{
  struct link *l = &links[number];
  ssize_t n = read(l->fd, l->in + l->in_len, sizeof l->in - l->in_len);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) link_close(number);
  else if (n > 0) {
    l->in_len += (size_t)n;
    size_t taken = 1;
    while (l->fd >= 0 && taken > 0) {
      check("recv", replcore_handle_recv(member, now_us(), number, l->in, l->in_len, &taken));
      drain();
      l->in_len -= taken;
      memmove(l->in, l->in + taken, l->in_len);
    }
  }
  drain();
}

static void link_write(uint32_t number)
{
  struct link *l = &links[number];
  if (l->dialling) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) link_close(number);
    else link_up(number, l->dial);
  } else {
    ssize_t n = write(l->fd, l->out, l->out_len);
    if (n < 0 && errno != EAGAIN && errno != EINTR) link_close(number);
    else if (n > 0) {
      l->out_len -= (size_t)n;
      memmove(l->out, l->out + n, l->out_len);
      check("writable", replcore_handle_writable(member, now_us(), number, (uint32_t)n));
    }
  }
  drain();
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

static int listen_at(char *address)
{
  struct addrinfo *found = resolve(address);
  int one = 1, fd = found ? socket(found->ai_family, SOCK_STREAM, 0) : -1;
  if (fd < 0) die("the own address");
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 16) != 0) die("listening");
  freeaddrinfo(found);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

static uint64_t random_number(void)
{
  uint64_t number = 0;
  int fd = open("/dev/urandom", O_RDONLY);
  if (fd < 0 || read(fd, &number, sizeof number) != sizeof number) die("/dev/urandom");
  close(fd);
  return number | 1;
}

/* Makes the member of the list and what was stored; returns its listening socket. */
static int begin(int count, char **list)
{
  replcore_member_config config;
  uint8_t record[REPLCORE_POLL_BYTES_MAX + 4];
  char *own = NULL;
  memset(&config, 0, sizeof config);
  if (load(0, record, sizeof record) == sizeof config.instance) memcpy(&config.instance, record, sizeof config.instance);
  else {
    config.instance = random_number();
    if (!store(0, &config.instance, sizeof config.instance)) die(folder);
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
    size_t len = load(key, record, sizeof record);
    if (len > 0) check("restore", replcore_restore(member, key, 0, record, len));
  }
  return listen_at(own);
}

static int links_open(void)
{
  for (int i = 0; i < LINKS_MAX; i++)
    if (links[i].fd >= 0 && !links[i].dialling) return 1;
  return 0;
}

int main(int argc, char **argv)
{
  if (argc < 4 || argc - 3 > PEERS_MAX + 1) {
    fprintf(stderr, "usage: election FOLDER NAME NAME=HOST:PORT...\n");
    return 2;
  }
  if (replcore_abi() != REPLCORE_ABI) { fprintf(stderr, "election: library and header differ\n"); return 1; }
  folder = argv[1], own_name = argv[2];
  for (int i = 0; i < LINKS_MAX; i++) links[i].fd = -1;
  int listener = begin(argc - 3, argv + 3), running = 1;
  check("start", replcore_handle_timeout(member, now_us()));
  while (running || links_open()) {
    struct pollfd fds[LINKS_MAX + 2];
    uint64_t wake = drain(), now = now_us(), left = wake > now ? (wake - now + 999) / 1000 : 0;
    fds[LINKS_MAX].fd = listener, fds[LINKS_MAX].events = POLLIN;
    fds[LINKS_MAX + 1].fd = running ? 0 : -1, fds[LINKS_MAX + 1].events = POLLIN;
    for (int i = 0; i < LINKS_MAX; i++) {
      fds[i].fd = links[i].fd;
      fds[i].events = (short)((links[i].dialling ? 0 : POLLIN) | (links[i].dialling || links[i].out_len > 0 ? POLLOUT : 0));
    }
    if (poll(fds, LINKS_MAX + 2, left > 1000 ? 1000 : (int)left) < 0) {
      if (errno != EINTR) die("poll");
      continue;
    }
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
      if (fds[i].fd < 0 || links[i].fd != fds[i].fd || fds[i].revents == 0) continue;
      if (links[i].dialling || fds[i].revents & POLLOUT) link_write(i);
      if (links[i].fd == fds[i].fd && !links[i].dialling && fds[i].revents & ~POLLOUT) link_read(i);
    }
    if (fds[LINKS_MAX].revents != 0) {
      int fd = accept(listener, NULL, NULL), number = link_free();
      if (fd >= 0 && number < 0) close(fd);
      else if (fd >= 0) link_begin(number, fd), link_up((uint32_t)number, REPLCORE_NOT_DIALED);
      drain();
    }
    if (fds[LINKS_MAX + 1].revents != 0 && !read_orders()) {
      running = 0;
      check("stop", replcore_member_stop(member, now_us()));
      drain();
    }
    check("time", replcore_handle_timeout(member, now_us()));
  }
  return 0;
}
