/* A line whose packets only this leaf and its hub can read, by a key that the two share. */

#include <string.h>

#include "board.h"
#include "line.h"
#include "log.h"
#include "replcore.h"

enum { FRAME_MAX = 512, NOISE_BYTES = 1024 /* replcore_noise_memory() at least */ };

static const char NAME[] = "mcu-1", HUB[] = "hub";
/* For the example: a device has a key of its own, which is written to it when it is made. */
static const char KEY[] = "not a key for anything but tests";

static uint8_t memory[NOISE_BYTES] __attribute__((aligned(8)));
static uint8_t packet[FRAME_MAX + REPLCORE_NOISE_OVERHEAD_BYTES];
static replcore_noise *line;

const uint8_t *line_begin(size_t *len)
{
  uint8_t random[REPLCORE_NOISE_KEY_BYTES];
  replcore_noise_identity identity;
  memset(&identity, 0, sizeof identity);
  identity.struct_size = sizeof identity;
  identity.name = NAME, identity.shared_key = (const uint8_t *)KEY;
  if (line == NULL) check("noise", replcore_noise_init(memory, sizeof memory, REPLCORE_NOISE_BEGINS, &line));
  board_entropy(random, sizeof random);
  check("start", replcore_noise_start(line, &identity, random, packet, sizeof packet, len));
  return packet;
}

enum line_came line_take(uint8_t *bytes, size_t len, size_t *at, size_t *frame_len)
{
  replcore_noise_taken taken;
  if (line == NULL) return LINE_NOTHING;
  check("take", replcore_noise_take(line, bytes, len, &taken));
  *at = taken.at, *frame_len = taken.len;
  switch (taken.kind) {
  case REPLCORE_NOISE_UP: return LINE_UP;
  case REPLCORE_NOISE_FRAME: return LINE_FRAME;
  case REPLCORE_NOISE_LOST: return LINE_DOWN;
  default: return LINE_NOTHING;
  }
}

const uint8_t *line_seal(const uint8_t *frame, size_t frame_len, size_t *len)
{
  memcpy(packet + REPLCORE_NOISE_HEAD_BYTES, frame, frame_len);
  return replcore_noise_seal(line, packet, sizeof packet, frame_len, len) == REPLCORE_STATUS_OK ? packet : NULL;
}

void line_end(void)
{
  if (line != NULL) check("forget", replcore_noise_forget(line));
}

uint64_t line_peer(void)
{
  uint64_t id;
  check(HUB, replcore_name_id(HUB, &id));
  return id;
}
