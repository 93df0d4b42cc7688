/* What is between frames and the serial line: nothing (plain.c), or keys that only this leaf and its hub
 * have (noise.c). One of the two is linked. */
#ifndef LINE_H
#define LINE_H

#include <stddef.h>
#include <stdint.h>

enum { LINE_OVERHEAD_MAX = 21 };        /* bytes that a packet has beside its frame at most */

enum line_came { LINE_NOTHING, LINE_UP, LINE_DOWN, LINE_FRAME };

/* The leaf wants a link: a packet to be sent for it, and its length; 0 when the link is up at once. It has
 * failed when LINE_UP has not come within LINE_ANSWER_US. */
#define LINE_ANSWER_US 5000000u
const uint8_t *line_begin(size_t *len);
/* What came of a packet; for LINE_FRAME where in it the frame stands. */
enum line_came line_take(uint8_t *packet, size_t len, size_t *at, size_t *frame_len);
/* The packet of a frame, and its length; NULL when the link has to end. */
const uint8_t *line_seal(const uint8_t *frame, size_t frame_len, size_t *len);
/* The link is down. */
void line_end(void);
/* The id of who is proved to be at the other end; 0 for nobody. */
uint64_t line_peer(void);

#endif
