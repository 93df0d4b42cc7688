/* The board: start-up, one serial port, a tick, reset, and the console of the emulator. A TI LM3S6965
 * with a Cortex-M3; for another board write another board.c and another linker script. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

void board_start(void);
/* A number that should differ from start to start. This board has no source of such numbers, so it is
 * mostly the same; the log's epoch tells the starts apart. */
uint64_t board_random(void);
/* Bytes that nobody can guess. This board has no source of such bytes either: they are those of the machine
 * that the emulator runs on. */
void board_entropy(uint8_t *out, size_t len);
uint64_t board_now_us(void); /* since the start */

/* Takes a byte that the port has; 0 when it has none. */
int board_receive(uint8_t *byte);
void board_send(const uint8_t *bytes, size_t len);
/* Sleeps until a byte has come or a tick is over. */
void board_wait(void);

/* Marks what is free of the stack as unused. */
void board_paint_stack(void);
/* Most bytes of stack in use at once since then. */
size_t board_stack_bytes(void);
void board_reset(void) __attribute__((noreturn));
/* By semihosting: on real hardware a debugger has to be there. */
void board_say(const char *text);
void board_fail(const char *text) __attribute__((noreturn));

#endif
