// SPDX-License-Identifier: MIT
/*
 * A session: a forked process that does what the harness asks. It owns every descriptor, mapping and thread that comes of it, so its death,
 * however it comes about, gives all of them back.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

#define MAX_BUFFERS	64
#define MAX_RELOCATIONS	256
#define PAGE		4096ul
#define SLOT		(64ul * 1024)	/* a multiple of every page size in use */

uint32_t session_id;
static int session_fd;
static pthread_mutex_t send_lock = PTHREAD_MUTEX_INITIALIZER;
static __thread sigjmp_buf *fault_exit;

void session_send(struct out *out)
{
	out_end(out);
	pthread_mutex_lock(&send_lock);
	if (write_all(session_fd, out->data, out->size))
		_exit(0);
	pthread_mutex_unlock(&send_lock);
}

/* The reason reaches the harness through the supervisor, which sees this frame before it sees the process end. */
void session_fail(const char *why)
{
	struct out out = { 0 };

	out_begin(&out, WIRE_ENDED, session_id, 0);
	out_u32(&out, 0);
	out_str(&out, why);
	session_send(&out);
	_exit(71);
}

static void on_fault(int signal)
{
	if (fault_exit)
		siglongjmp(*fault_exit, 1);
	/* Not an access that the harness asked for: die of it. */
	struct sigaction action = { .sa_handler = SIG_DFL };

	sigaction(signal, &action, NULL);
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signal);
}

static void on_kick(int signal)
{
	(void)signal;
}

/* Registers of a device want one access of their own width; everything else is plain memory. */
static void copy_volatile(void *to, const void *from, size_t size)
{
	if (((uintptr_t)to | (uintptr_t)from) % size == 0) {
		switch (size) {
		case 1:
			*(volatile uint8_t *)to = *(const volatile uint8_t *)from;
			return;
		case 2:
			*(volatile uint16_t *)to = *(const volatile uint16_t *)from;
			return;
		case 4:
			*(volatile uint32_t *)to = *(const volatile uint32_t *)from;
			return;
		case 8:
			*(volatile uint64_t *)to = *(const volatile uint64_t *)from;
			return;
		}
	}
	memcpy(to, from, size);
}

/* Copies between the session's memory and a frame; 0, or -EFAULT when it is not mapped that way. */
static int memory_copy(void *to, const void *from, size_t size)
{
	sigjmp_buf here;
	/* A frame has no alignment, so small values take the way over a register. */
	uint64_t value = 0;

	if (!size)
		return 0;
	if (sigsetjmp(here, 1)) {
		fault_exit = NULL;
		return -EFAULT;
	}
	fault_exit = &here;
	if (size == 1 || size == 2 || size == 4 || size == 8) {
		copy_volatile(&value, from, size);
		copy_volatile(to, &value, size);
	} else {
		memcpy(to, from, size);
	}
	fault_exit = NULL;
	return 0;
}

int memory_holds(uint64_t address, uint32_t width, uint32_t condition, uint64_t mask, uint64_t value, uint64_t *seen)
{
	uint64_t v = 0;

	if (width != 1 && width != 2 && width != 4 && width != 8)
		return -EINVAL;
	if (memory_copy(&v, (const void *)(uintptr_t)address, width))
		return -EFAULT;
	v &= mask;
	*seen = v;
	switch (condition) {
	case 0: return v == value;
	case 1: return v != value;
	case 2: return v >= value;
	case 3: return v < value;
	default: return -EINVAL;
	}
}

struct buffer {
	uint8_t *data;
	size_t capacity;
	size_t mapped;
	uint32_t flags;
};

static uint8_t *slots;
static __thread int owns_slots;

/* Small buffers of the dispatch thread come from slots with a hole behind each; others are mapped for the call. */
static int buffer_get(struct buffer *b, unsigned int index)
{
	size_t size = b->capacity ? b->capacity : 1;

	if (owns_slots && size <= SLOT) {
		if (!slots) {
			slots = mmap(NULL, 2 * SLOT * MAX_BUFFERS, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
			if (slots == MAP_FAILED)
				die("no address space for buffers");
			for (int i = 0; i < MAX_BUFFERS; i++)
				mprotect(slots + 2 * SLOT * (size_t)i, SLOT, PROT_READ | PROT_WRITE);
		}
		b->data = slots + 2 * SLOT * index;
		b->mapped = 0;
		memset(b->data, 0, b->capacity);
		return 0;
	}
	b->mapped = (size + SLOT - 1) / SLOT * SLOT + SLOT;
	b->data = mmap(NULL, b->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->data == MAP_FAILED)
		return -ENOMEM;
	mprotect(b->data, b->mapped - SLOT, PROT_READ | PROT_WRITE);
	return 0;
}

static void buffer_put(struct buffer *b)
{
	if (b->mapped)
		munmap(b->data, b->mapped);
}

static int do_call(const struct wire_header *h, struct in *in, struct out *out)
{
	struct buffer buffers[MAX_BUFFERS];
	uint64_t args[6];
	uint8_t which[6];
	uint32_t number = in_u32(in);
	unsigned int nbuffers = in_u16(in), nrelocations = in_u16(in), returned = 0;
	uint64_t began, took;
	long result;
	int error;

	for (int i = 0; i < 6; i++)
		args[i] = in_u64(in);
	for (int i = 0; i < 6; i++)
		which[i] = in_u8(in);
	in_u16(in);
	if (in->bad || nbuffers > MAX_BUFFERS || nrelocations > MAX_RELOCATIONS)
		return -1;
	for (int i = 0; i < 6; i++)
		if (which[i] != 0xff && which[i] >= nbuffers)
			return -1;
	for (unsigned int i = 0; i < nbuffers; i++) {
		struct buffer *b = &buffers[i];
		uint32_t size;
		const void *content;

		b->capacity = in_u32(in);
		b->flags = in_u32(in);
		size = in_u32(in);
		content = in_take(in, size);
		if (in->bad || size > b->capacity || b->capacity > WIRE_MAX_PAYLOAD / 2) {
			while (i--)
				buffer_put(&buffers[i]);
			return -1;
		}
		if (buffer_get(b, i)) {
			while (i--)
				buffer_put(&buffers[i]);
			out_refuse(out, h, -ENOMEM, "no memory for a buffer");
			return 0;
		}
		memcpy(b->data, content, size);
		if (b->flags & 1)
			returned++;
	}
	for (unsigned int i = 0; i < nrelocations; i++) {
		uint32_t buffer = in_u32(in), offset = in_u32(in), target = in_u32(in), addend = in_u32(in);
		uint64_t address;

		if (in->bad || buffer >= nbuffers || target >= nbuffers || offset > buffers[buffer].capacity ||
		    buffers[buffer].capacity - offset < 8) {
			for (unsigned int j = 0; j < nbuffers; j++)
				buffer_put(&buffers[j]);
			return -1;
		}
		address = (uintptr_t)buffers[target].data + addend;
		memcpy(buffers[buffer].data + offset, &address, sizeof(address));
	}
	for (int i = 0; i < 6; i++)
		if (which[i] != 0xff)
			args[i] += (uintptr_t)buffers[which[i]].data;

	began = now_ns();
	errno = 0;
	result = syscall((long)number, args[0], args[1], args[2], args[3], args[4], args[5]);
	error = result == -1 ? errno : 0;
	took = now_ns() - began;

	out_reply(out, h);
	out_u64(out, (uint64_t)(int64_t)result);
	out_u32(out, (uint32_t)error);
	out_u32(out, returned);
	out_u64(out, took);
	for (unsigned int i = 0; i < nbuffers; i++) {
		if (buffers[i].flags & 1)
			out_bytes(out, buffers[i].data, buffers[i].capacity);
		buffer_put(&buffers[i]);
	}
	return 0;
}

static int do_read(const struct wire_header *h, struct in *in, struct out *out)
{
	uint64_t address = in_u64(in);
	uint32_t length = in_u32(in);

	if (in->bad || length > WIRE_MAX_PAYLOAD - 64)
		return -1;
	out_reply(out, h);
	out_u32(out, length);
	if (memory_copy(out_space(out, length), (const void *)(uintptr_t)address, length))
		out_refuse(out, h, -EFAULT, "the address is not readable");
	return 0;
}

static int do_write(const struct wire_header *h, struct in *in, struct out *out)
{
	uint64_t address = in_u64(in);
	uint32_t length = in_u32(in);
	const void *data = in_take(in, length);

	if (in->bad)
		return -1;
	if (memory_copy((void *)(uintptr_t)address, data, length))
		out_refuse(out, h, -EFAULT, "the address is not writable");
	else
		out_reply(out, h);
	return 0;
}

static int do_await(const struct wire_header *h, struct in *in, struct out *out)
{
	uint64_t address = in_u64(in), mask, value, patience, seen = 0, end;
	uint32_t width = in_u32(in), condition = in_u32(in);
	int holds;

	mask = in_u64(in);
	value = in_u64(in);
	patience = in_u64(in);
	if (in->bad)
		return -1;
	end = now_ns() + patience;
	for (unsigned int turn = 0; ; turn++) {
		holds = memory_holds(address, width, condition, mask, value, &seen);
		if (holds || now_ns() >= end)
			break;
		if (turn < 64) {
			sched_yield();
		} else {
			struct timespec pause = { .tv_nsec = turn < 256 ? 50000 : 500000 };

			nanosleep(&pause, NULL);
		}
	}
	if (holds < 0) {
		out_refuse(out, h, holds, holds == -EFAULT ? "the address is not readable" : "no such width or condition");
		return 0;
	}
	out_reply(out, h);
	out_u32(out, (uint32_t)holds);
	out_u64(out, seen);
	return 0;
}

static int dispatch(const struct wire_header *h, struct in *in, struct out *out)
{
	switch (h->kind) {
	case WIRE_CALL: return do_call(h, in, out);
	case WIRE_READ: return do_read(h, in, out);
	case WIRE_WRITE: return do_write(h, in, out);
	case WIRE_AWAIT: return do_await(h, in, out);
	case WIRE_VCPU_START:
	case WIRE_VCPU_RESUME:
	case WIRE_VCPU_KICK:
	case WIRE_VCPU_STOP:
	case WIRE_VCPU_RECORDS: return vcpu_request(h, in, out);
	case WIRE_PROGRAM: return program_request(h, in, out);
	default: return -1;
	}
}

static void handle(const struct wire_header *h, const uint8_t *payload, struct out *out)
{
	struct in in = { .at = payload, .left = h->length };

	out->size = 0;
	if (dispatch(h, &in, out))
		session_fail("malformed request");
	if (out->size)
		session_send(out);
}

struct offloaded {
	struct wire_header header;
	uint8_t payload[];
};

static void *offload_main(void *argument)
{
	struct offloaded *work = argument;
	struct out out = { 0 };

	handle(&work->header, work->payload, &out);
	out_free(&out);
	free(work);
	return NULL;
}

static void offload(const struct wire_header *h, const uint8_t *payload)
{
	struct offloaded *work = malloc(sizeof(*work) + h->length);
	pthread_attr_t attributes;
	pthread_t thread;

	if (!work)
		session_fail("out of memory");
	work->header = *h;
	memcpy(work->payload, payload, h->length);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, 256 * 1024);
	if (pthread_create(&thread, &attributes, offload_main, work))
		session_fail("no thread for an offloaded request");
	pthread_attr_destroy(&attributes);
}

void session_main(int fd, uint32_t id)
{
	struct sigaction fault = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };
	struct sigaction kick = { .sa_handler = on_kick };
	struct rlimit files = { 1 << 20, 1 << 20 };
	struct wire_header h;
	struct out out = { 0 };
	uint8_t *payload = NULL;
	size_t capacity = 0;

	session_fd = fd;
	session_id = id;
	owns_slots = 1;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setrlimit(RLIMIT_NOFILE, &files);
	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGBUS, &fault, NULL);
	sigaction(SIGUSR1, &kick, NULL);
	for (;;) {
		if (read_all(fd, &h, sizeof(h)))
			_exit(0);
		if (h.length > capacity) {
			payload = realloc(payload, h.length);
			if (!payload)
				session_fail("out of memory");
			capacity = h.length;
		}
		if (h.length && read_all(fd, payload, h.length))
			_exit(0);
		if (h.flags & WIRE_OFFLOAD)
			offload(&h, payload);
		else
			handle(&h, payload, &out);
	}
}
