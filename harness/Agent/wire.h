/* SPDX-License-Identifier: MIT */
#ifndef CONFORMANCE_WIRE_H
#define CONFORMANCE_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define WIRE_MAGIC		0x314D4643u
#define WIRE_VERSION		2u
#define WIRE_MAX_PAYLOAD	(16u << 20)
#define WIRE_OFFLOAD		1u
#define WIRE_REPLY		0x8000u

enum wire_kind {
	WIRE_HELLO = 0x0001, WIRE_OPEN, WIRE_CLOSE,
	WIRE_CALL = 0x0010, WIRE_READ, WIRE_WRITE, WIRE_AWAIT,
	WIRE_VCPU_START = 0x0020, WIRE_VCPU_RESUME, WIRE_VCPU_KICK, WIRE_VCPU_STOP, WIRE_VCPU_RECORDS,
	WIRE_PROGRAM = 0x0030,
	WIRE_ENDED = 0x4001, WIRE_LOST,
	WIRE_VCPU_EXIT = 0x4010,
};

struct wire_header {
	uint32_t magic;
	uint32_t length;
	uint16_t kind;
	uint16_t flags;
	uint32_t session;
	uint32_t sequence;
};

_Static_assert(sizeof(struct wire_header) == 20, "header");

/* A payload being read; `bad` sticks once something reached past its end. */
struct in {
	const uint8_t *at;
	size_t left;
	int bad;
};

const void *in_take(struct in *in, size_t size);
uint8_t in_u8(struct in *in);
uint16_t in_u16(struct in *in);
uint32_t in_u32(struct in *in);
uint64_t in_u64(struct in *in);

/* A frame being built. */
struct out {
	uint8_t *data;
	size_t size;
	size_t capacity;
};

void out_begin(struct out *out, uint16_t kind, uint32_t session, uint32_t sequence);
void out_reply(struct out *out, const struct wire_header *to);
void out_refuse(struct out *out, const struct wire_header *to, int error, const char *format, ...) __attribute__((format(printf, 4, 5)));
void *out_space(struct out *out, size_t size);
void out_u32(struct out *out, uint32_t value);
void out_u64(struct out *out, uint64_t value);
void out_bytes(struct out *out, const void *data, size_t size);
void out_str(struct out *out, const char *text);
void out_end(struct out *out);
void out_free(struct out *out);

int write_all(int fd, const void *data, size_t size);
uint64_t now_ns(void);
/* `time` plus `span`, or the end of time. */
uint64_t later(uint64_t time, uint64_t span);
void relax(void);
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/*
 * What a request does: parses its payload, acts, and leaves its reply in `out`. NULL, or why the payload is malformed, which ends the
 * session.
 */
typedef const char *request(const struct wire_header *h, struct in *in, struct out *out);

/* session.c */
void session_main(int fd, uint32_t id) __attribute__((noreturn));
void session_send(struct out *out);
void session_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
extern uint32_t session_id;
/* What this thread does, for the reason of a session that dies of touching memory. */
extern __thread struct doing {
	const char *what;
	uint32_t number;
} thread_does;
/* Copies memory the harness named; 0, or -EFAULT. Widths of a register are one access. */
int memory_copy(void *to, const void *from, size_t size);
/* Whether `value` meets the condition of an AWAIT; widths and conditions have been checked. */
int value_meets(uint64_t value, uint64_t condition, uint64_t wanted);
int is_width(uint64_t width);
/* The harness may touch anything that is mapped, also where a sanitizer sees nobody's object. */
#ifdef __SANITIZE_ADDRESS__
#define UNCHECKED __attribute__((no_sanitize("address")))
#else
#define UNCHECKED
#endif
void raw_copy(void *to, const void *from, size_t size);
uint64_t load(uint64_t address, uint32_t width);

/* vcpu.c */
request vcpu_request;

/* program.c */
request program_request;
/* Where the program thread that calls this is, for the same reason as thread_does; 0 when it is none. */
int program_where(char *text, size_t size);

#endif
