/* NOR flash; see flash.h. */
#include "flash.h"

#include <string.h>

#include "board.h"

enum { ERASE_STEP_BYTES = 256 };

static int fault_planned;
static uint32_t steps_to_fault;

/* Writes a word, or half of it when the power fails. */
static void set(uint32_t at, uint32_t value, int last_of_step)
{
  volatile uint32_t *word = (volatile uint32_t *)(uintptr_t)(log_flash + at);
  if (at % 4 != 0 || at >= FLASH_BYTES) board_fail("flash: beyond the region");
  if (fault_planned && steps_to_fault == 0) {
    *word = value | 0xffff;
    board_reset();
  }
  *word = value;
  if (last_of_step && fault_planned) steps_to_fault--;
}

void flash_erase(uint32_t at, uint32_t bytes)
{
  for (uint32_t end = at + bytes; at < end; at += 4) set(at, UINT32_MAX, at % ERASE_STEP_BYTES == 0);
}

void flash_write(uint32_t at, const void *data, size_t bytes)
{
  for (size_t done = 0; done < bytes; done += 4) {
    uint32_t before, word;
    memcpy(&before, log_flash + at + done, 4);
    memcpy(&word, (const uint8_t *)data + done, 4);
    if (before != UINT32_MAX) board_fail("flash: a word is written once");
    set(at + (uint32_t)done, word, 1);
  }
}

void flash_plan_fault(uint32_t steps)
{
  fault_planned = 1;
  steps_to_fault = steps;
}
