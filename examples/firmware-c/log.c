/* The log; see log.h. */
#include "log.h"

#include <string.h>

#include "board.h"
#include "flash.h"

enum {
  HALF_BYTES = FLASH_BYTES / 2, NOTE_STATE = 2, ENTRY_HEAD_BYTES = 12, SEGMENT_AT = 8, WORD_BYTES = 4,
  STATE_BATCH_BYTES = REPLCORE_BATCH_HEADER_BYTES + ENTRY_HEAD_BYTES + sizeof(struct state),
  RECORD_BATCH_BYTES = REPLCORE_BATCH_HEADER_BYTES + RECORD_BYTES_MAX
};

/* All that waits and the state fit one half, with room for the next state. */
typedef char half_is_large_enough[WAITING_MAX * RECORD_BATCH_BYTES + 2 * STATE_BATCH_BYTES <= HALF_BYTES ? 1 : -1];
typedef char records_fit_the_buffer[(int)RECORD_BATCH_BYTES <= (int)STATE_BATCH_BYTES ? 1 : -1];

struct state state;
uint64_t log_next;

static uint64_t segment;              /* of the half in use, which is the one of its parity; 0 for none */
static uint32_t end;                  /* where the next batch goes, in that half */
static uint16_t record_at[WAITING_MAX]; /* where the latest records are in it, by number */
static uint8_t batch[STATE_BATCH_BYTES] __attribute__((aligned(4)));

static uint32_t half_of(uint64_t number) { return (uint32_t)(number % 2) * HALF_BYTES; }

static uint32_t whole_words(size_t bytes) { return (uint32_t)(bytes + WORD_BYTES - 1) / WORD_BYTES * WORD_BYTES; }

/* ---- Writing ---- */

/* Writes the batch whose `len` bytes of entries are in `batch`. The caller has made sure of the room. */
static void write_batch(size_t len, uint64_t first, uint32_t records)
{
  replcore_batch head = { segment, first, (uint32_t)len, records };
  uint32_t bytes = whole_words(REPLCORE_BATCH_HEADER_BYTES + len);
  memset(batch + REPLCORE_BATCH_HEADER_BYTES + len, 0, bytes - REPLCORE_BATCH_HEADER_BYTES - len);
  check("batch", replcore_batch_encode(&head, batch, sizeof batch));
  if (end + bytes > HALF_BYTES) board_fail("log: a half is too small");
  flash_write(half_of(segment) + end, batch, bytes);
  end += bytes;
}

static void write_record(uint64_t number, const uint8_t *record, size_t len)
{
  memcpy(batch + REPLCORE_BATCH_HEADER_BYTES, record, len);
  record_at[number % WAITING_MAX] = (uint16_t)(end + REPLCORE_BATCH_HEADER_BYTES);
  write_batch(len, number, 1);
}

static void write_state(void)
{
  size_t len;
  check("state", replcore_entry_encode(NOTE_STATE, (const uint8_t *)&state, sizeof state,
                                       batch + REPLCORE_BATCH_HEADER_BYTES,
                                       sizeof batch - REPLCORE_BATCH_HEADER_BYTES, &len));
  write_batch(len, log_next, 0);
}

/* Goes on in the other half, with what is still wanted. */
static void change_halves(void)
{
  uint32_t old = half_of(segment);
  segment++, end = 0;
  flash_erase(half_of(segment), HALF_BYTES);
  for (uint64_t number = state.released; number < log_next; number++) {
    const uint8_t *record = log_flash + old + record_at[number % WAITING_MAX];
    uint32_t kind;
    size_t len;
    check("record", replcore_entry_read(record, RECORD_BYTES_MAX, RECORD_BYTES_MAX, &kind, &len));
    write_record(number, record, len);
  }
  write_state();
}

static void make_room(size_t bytes)
{
  if (end + whole_words(bytes) > HALF_BYTES) change_halves();
}

int log_append(const uint8_t *record, size_t len)
{
  if (log_next - state.released >= WAITING_MAX) return 0;
  make_room(REPLCORE_BATCH_HEADER_BYTES + len);
  write_record(log_next, record, len);
  log_next++;
  return 1;
}

void log_store(const struct state *next)
{
  make_room(STATE_BATCH_BYTES);
  state = *next;
  write_state();
}

/* ---- Reading ---- */

const uint8_t *log_record(uint64_t number, size_t *len)
{
  uint32_t kind;
  if (number < state.released || number >= log_next) return NULL;
  const uint8_t *record = log_flash + half_of(segment) + record_at[number % WAITING_MAX];
  check("record", replcore_entry_read(record, RECORD_BYTES_MAX, RECORD_BYTES_MAX, &kind, len));
  return record;
}

/* The batch at `at` of a half; 0 where the half ends. */
static int read_batch(uint64_t number, uint32_t at, replcore_batch *head)
{
  return at < HALF_BYTES
         && replcore_batch_read(log_flash + half_of(number) + at, HALF_BYTES - at, number, head) == REPLCORE_STATUS_OK;
}

static uint32_t next_batch(uint32_t at, const replcore_batch *head)
{
  return at + whole_words(REPLCORE_BATCH_HEADER_BYTES + head->entries_len);
}

/* The number of what the half at `at` holds; 0 when it does not count. */
static uint64_t number_of_half(uint32_t at)
{
  uint64_t number;
  replcore_batch head;
  memcpy(&number, log_flash + at + SEGMENT_AT, sizeof number);
  if (half_of(number) != at) return 0;
  for (uint32_t next = 0; read_batch(number, next, &head); next = next_batch(next, &head))
    if (head.records == 0) return number;
  return 0;
}

/* Reads the half in use: the newest state, and where the records are. */
static void read_half(void)
{
  replcore_batch head;
  for (end = 0; read_batch(segment, end, &head); end = next_batch(end, &head)) {
    uint32_t entries = end + REPLCORE_BATCH_HEADER_BYTES;
    log_next = head.first_ordinal + head.records;
    if (head.records > 0) record_at[head.first_ordinal % WAITING_MAX] = (uint16_t)entries;
    else memcpy(&state, log_flash + half_of(segment) + entries + ENTRY_HEAD_BYTES, sizeof state);
  }
  /* More never wait: the acknowledgement was seen, if not yet stored. */
  if (log_next - state.released > WAITING_MAX) state.released = log_next - WAITING_MAX;
}

/* The life that ends is remembered as long as some of its records may be asked for. */
static void begin_life(uint64_t random)
{
  replcore_life *ended = NULL;
  for (int i = 0; i < LIVES_MAX; i++) {
    if (state.lives[i].end <= state.released) memset(&state.lives[i], 0, sizeof state.lives[i]);
    if (state.lives[i].end == 0 && ended == NULL) ended = &state.lives[i];
  }
  /* The oldest is kept, in which the last acknowledgement was, and the latest. */
  if (ended == NULL) ended = &state.lives[LIVES_MAX / 2];
  if (log_next > state.released) ended->end = log_next, ended->epoch = state.epoch;
  state.epoch = replcore_epoch_next(state.epoch, random);
  state.base = log_next;
}

void log_open(uint64_t random)
{
  uint64_t first = number_of_half(0), second = number_of_half(HALF_BYTES);
  segment = first > second ? first : second;
  if (segment > 0) {
    read_half();
    begin_life(random);
  } else {
    state.instance = random | 1;
    state.epoch = replcore_epoch_first(random >> 32);
  }
  change_halves();
}

struct place *log_place(struct state *of, uint64_t owner, uint64_t queue, uint32_t message_class)
{
  for (struct place *p = of->places; p < of->places + PLACES_MAX; p++)
    if (p->owner == owner && p->queue == queue && p->message_class == message_class) return p;
  return NULL;
}

void log_set_place(struct state *of, const struct place *place)
{
  struct place *p = log_place(of, place->owner, place->queue, place->message_class);
  for (int i = 0; p == NULL && i < PLACES_MAX; i++)
    if (of->places[i].owner == 0) p = &of->places[i];
  if (p == NULL) {
    p = &of->places[PLACES_MAX - 1];
    memmove(of->places, of->places + 1, sizeof of->places - sizeof *of->places);
  }
  *p = *place;
}
