/* A line that anybody on it can read: packets are frames. */

#include "line.h"

const uint8_t *line_begin(size_t *len)
{
  *len = 0;
  return NULL;
}

enum line_came line_take(uint8_t *packet, size_t len, size_t *at, size_t *frame_len)
{
  (void)packet;
  *at = 0, *frame_len = len;
  return LINE_FRAME;
}

const uint8_t *line_seal(const uint8_t *frame, size_t frame_len, size_t *len)
{
  *len = frame_len;
  return frame;
}

void line_end(void) {}
uint64_t line_peer(void) { return 0; }
