/* The board; see board.h. */
#include "board.h"

#include <string.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))

/* UART0, a PL011. */
#define UART_DATA REGISTER(0x4000c000)
#define UART_FLAGS REGISTER(0x4000c018)
#define UART_LINE_CONTROL REGISTER(0x4000c02c)
#define UART_CONTROL REGISTER(0x4000c030)
#define UART_FIFO_LEVELS REGISTER(0x4000c034)
#define UART_INTERRUPT_MASK REGISTER(0x4000c038)
#define UART_INTERRUPT_CLEAR REGISTER(0x4000c044)
#define UART_CLOCK_GATE REGISTER(0x400fe104)
/* The processor's own. */
#define TICK_CONTROL REGISTER(0xe000e010)
#define TICK_RELOAD REGISTER(0xe000e014)
#define TICK_VALUE REGISTER(0xe000e018)
#define INTERRUPTS_ENABLE REGISTER(0xe000e100)
#define RESET_CONTROL REGISTER(0xe000ed0c)

enum {
  RX_EMPTY = 1 << 4, TX_FULL = 1 << 5, RX_AND_TIMEOUT = 1 << 4 | 1 << 6, UART_INTERRUPT = 5,
  CLOCK_HZ = 12500000, TICK_US = 2000, EXCEPTIONS = 15, INTERRUPTS = 43, PAINT = 0x5c5c5c5c
};

/* From the linker script. */
extern uint32_t data_in_flash[], data_start[], data_end[], bss_start[], bss_end[], stack_end[], stack_top[];

static volatile uint32_t ticks;
static uint32_t stdout_handle;

int main(void);

/* ---- Start-up ---- */

static void on_reset(void)
{
  for (uint32_t *to = data_start, *from = data_in_flash; to < data_end;) *to++ = *from++;
  for (uint32_t *to = bss_start; to < bss_end;) *to++ = 0;
  board_paint_stack();
  main();
  board_reset();
}

static void on_fault(void) { board_fail("an exception"); }

static void on_tick(void) { ticks++; }

/* A byte has come. That has woken the processor, which is all that is wanted. */
static void on_uart(void) { UART_INTERRUPT_MASK = 0; }

struct vectors {
  uint32_t *stack;
  void (*exceptions[EXCEPTIONS])(void);
  void (*interrupts[INTERRUPTS])(void);
};

extern const struct vectors vectors;
__attribute__((section(".vectors"), used)) const struct vectors vectors = {
  stack_top,
  { on_reset, on_fault, on_fault, on_fault, on_fault, on_fault, 0, 0, 0, 0, on_fault, on_fault, 0, on_fault, on_tick },
  { 0, 0, 0, 0, 0, on_uart }
};

/* ---- The console of the emulator ---- */

enum {
  SEMIHOSTING_OPEN = 0x01, SEMIHOSTING_CLOSE = 0x02, SEMIHOSTING_WRITE = 0x05, SEMIHOSTING_READ = 0x06,
  SEMIHOSTING_EXIT = 0x20, OPEN_TO_READ = 1, OPEN_TO_WRITE = 4
};

static uint32_t semihosting(uint32_t operation, const void *arguments)
{
  register uint32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = arguments;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

void board_say(const char *text)
{
  uint32_t arguments[3] = { stdout_handle, (uint32_t)text, strlen(text) };
  semihosting(SEMIHOSTING_WRITE, arguments);
  arguments[1] = (uint32_t)"\n", arguments[2] = 1;
  semihosting(SEMIHOSTING_WRITE, arguments);
}

void board_fail(const char *text)
{
  const uint32_t application_exit[2] = { 0x20026, 1 };
  board_say(text);
  for (;;) semihosting(SEMIHOSTING_EXIT, application_exit);
}

/* ---- Clock, port, sleep, reset ---- */

void board_start(void)
{
  const uint32_t console[3] = { (uint32_t)":tt", OPEN_TO_WRITE, 3 };
  stdout_handle = semihosting(SEMIHOSTING_OPEN, console);
  TICK_RELOAD = CLOCK_HZ / 1000 * TICK_US / 1000 - 1;
  TICK_VALUE = 0;
  TICK_CONTROL = 7; /* the processor's clock, with interrupt, on */
  UART_CLOCK_GATE = 1;
  UART_LINE_CONTROL = 0x70; /* 8 bits, FIFOs on */
  UART_FIFO_LEVELS = 0;
  UART_CONTROL = 0x301; /* on, both ways */
  INTERRUPTS_ENABLE = 1 << UART_INTERRUPT;
}

uint64_t board_random(void) { return (uint64_t)TICK_VALUE << 32 | CLOCK_HZ; }

void board_entropy(uint8_t *out, size_t len)
{
  static const char file[] = "/dev/urandom";
  const uint32_t open[3] = { (uint32_t)file, OPEN_TO_READ, sizeof file - 1 };
  const uint32_t handle = semihosting(SEMIHOSTING_OPEN, open);
  const uint32_t read[3] = { handle, (uint32_t)out, len };
  if (semihosting(SEMIHOSTING_READ, read) != 0) board_fail("no randomness"); /* bytes that are missing */
  semihosting(SEMIHOSTING_CLOSE, &handle);
}

uint64_t board_now_us(void)
{
  static uint64_t all;
  static uint32_t seen;
  uint32_t now = ticks;
  all += now - seen; /* right over the end of a word, too */
  seen = now;
  return all * TICK_US;
}

int board_receive(uint8_t *byte)
{
  if (UART_FLAGS & RX_EMPTY) return 0;
  *byte = (uint8_t)UART_DATA;
  return 1;
}

void board_send(const uint8_t *bytes, size_t len)
{
  for (size_t i = 0; i < len; i++) {
    while (UART_FLAGS & TX_FULL) { }
    UART_DATA = bytes[i];
  }
}

void board_wait(void)
{
  UART_INTERRUPT_CLEAR = RX_AND_TIMEOUT;
  UART_INTERRUPT_MASK = RX_AND_TIMEOUT;
  /* With interrupts off none is lost between the look and the sleep; it ends the sleep. */
  __asm__ volatile("cpsid i" ::: "memory");
  if (UART_FLAGS & RX_EMPTY) __asm__ volatile("wfi" ::: "memory");
  __asm__ volatile("cpsie i" ::: "memory");
}

__attribute__((noinline)) void board_paint_stack(void)
{
  enum { OWN_BYTES = 128 };
  volatile uint32_t *end = (volatile uint32_t *)((uintptr_t)__builtin_frame_address(0) - OWN_BYTES);
  for (volatile uint32_t *at = stack_end; at < end; at++) *at = PAINT;
}

size_t board_stack_bytes(void)
{
  const volatile uint32_t *at = stack_end;
  while (at < stack_top && *at == PAINT) at++;
  return (size_t)((const volatile uint8_t *)stack_top - (const volatile uint8_t *)at);
}

void board_reset(void)
{
  for (;;) RESET_CONTROL = 0x05fa0004;
}
