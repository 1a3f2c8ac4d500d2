// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

const void *in_take(struct in *in, size_t size)
{
	static const uint8_t nothing[8];
	const uint8_t *at = in->at;

	if (in->bad || size > in->left) {
		in->bad = 1;
		return nothing;
	}
	in->at += size;
	in->left -= size;
	return at;
}

uint8_t in_u8(struct in *in)
{
	return *(const uint8_t *)in_take(in, 1);
}

uint16_t in_u16(struct in *in)
{
	uint16_t v;

	memcpy(&v, in_take(in, sizeof(v)), sizeof(v));
	return v;
}

uint32_t in_u32(struct in *in)
{
	uint32_t v;

	memcpy(&v, in_take(in, sizeof(v)), sizeof(v));
	return v;
}

uint64_t in_u64(struct in *in)
{
	uint64_t v;

	memcpy(&v, in_take(in, sizeof(v)), sizeof(v));
	return v;
}

void *out_space(struct out *out, size_t size)
{
	void *at;

	if (out->size + size > out->capacity) {
		size_t capacity = out->capacity ? out->capacity * 2 : 512;

		while (capacity < out->size + size)
			capacity *= 2;
		out->data = realloc(out->data, capacity);
		if (!out->data)
			die("out of memory for a frame of %zu bytes", capacity);
		out->capacity = capacity;
	}
	at = out->data + out->size;
	out->size += size;
	return at;
}

void out_begin(struct out *out, uint16_t kind, uint32_t session, uint32_t sequence)
{
	struct wire_header h = {
		.magic = WIRE_MAGIC, .kind = kind, .session = session, .sequence = sequence,
	};

	out->size = 0;
	memcpy(out_space(out, sizeof(h)), &h, sizeof(h));
}

void out_reply(struct out *out, const struct wire_header *to)
{
	out_begin(out, to->kind | WIRE_REPLY, to->session, to->sequence);
	out_u32(out, 0);
}

void out_refuse(struct out *out, const struct wire_header *to, int error, const char *format, ...)
{
	char why[256];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	out_begin(out, to->kind | WIRE_REPLY, to->session, to->sequence);
	out_u32(out, (uint32_t)error);
	out_str(out, why);
}

void out_u32(struct out *out, uint32_t value)
{
	memcpy(out_space(out, sizeof(value)), &value, sizeof(value));
}

void out_u64(struct out *out, uint64_t value)
{
	memcpy(out_space(out, sizeof(value)), &value, sizeof(value));
}

void out_bytes(struct out *out, const void *data, size_t size)
{
	out_u32(out, (uint32_t)size);
	if (size)
		memcpy(out_space(out, size), data, size);
}

void out_str(struct out *out, const char *text)
{
	out_bytes(out, text, strlen(text));
}

void out_end(struct out *out)
{
	uint32_t length = (uint32_t)(out->size - sizeof(struct wire_header));

	memcpy(out->data + offsetof(struct wire_header, length), &length, sizeof(length));
}

void out_free(struct out *out)
{
	free(out->data);
	memset(out, 0, sizeof(*out));
}

int write_all(int fd, const void *data, size_t size)
{
	const uint8_t *at = data;

	while (size) {
		ssize_t n = write(fd, at, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t later(uint64_t time, uint64_t span)
{
	return span > UINT64_MAX - time ? UINT64_MAX : time + span;
}

/* Under single-threaded TCG this also hands the processor to the other vCPUs. */
void relax(void)
{
#ifdef __aarch64__
	__asm__ volatile("yield" ::: "memory");
#else
	__asm__ volatile("pause" ::: "memory");
#endif
}

void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("conformance agent: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	/* PID 1 that exits takes the kernel and its last words along. */
	while (getpid() == 1)
		pause();
	_exit(70);
}
