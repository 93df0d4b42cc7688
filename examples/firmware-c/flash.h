/* NOR flash in the manner of small microcontrollers, played by RAM that the start-up code leaves alone:
 * pages are erased to ones, each word is written once, and what is stored can be read like memory. Put
 * the functions of your chip here. */
#ifndef FLASH_H
#define FLASH_H

#include <stddef.h>
#include <stdint.h>

enum { FLASH_PAGE_BYTES = 4096, FLASH_BYTES = 8 * FLASH_PAGE_BYTES };

extern uint8_t log_flash[FLASH_BYTES];

/* Erases whole pages. */
void flash_erase(uint32_t at, uint32_t bytes);
/* Writes whole words that are erased. */
void flash_write(uint32_t at, const void *data, size_t bytes);

/* Has the power fail in the middle of what flash is doing after so many more steps: a step is a word
 * written, or some erased. */
void flash_plan_fault(uint32_t steps);

#endif
