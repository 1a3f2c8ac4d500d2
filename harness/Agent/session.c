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
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

#define MAX_BUFFERS	64
#define MAX_RELOCATIONS	256
#define MAX_KEPT	64
/* What names a kept result where a buffer could be named: this and its place. */
#define KEPT		0x80u
#define SLOT		(64ul << 10)	/* a multiple of every page size in use */
#define OFFLOAD_STACK	(256ul << 10)

uint32_t session_id;
__thread struct doing thread_does = { "a thread of the session", 0 };
static int session_fd;
static pthread_mutex_t send_lock = PTHREAD_MUTEX_INITIALIZER;
/* Where a fault of this thread returns to; volatile, for the access that may fault is not seen to use it. */
static __thread sigjmp_buf *volatile fault_exit;

void session_send(struct out *out)
{
	out_end(out);
	pthread_mutex_lock(&send_lock);
	if (write_all(session_fd, out->data, out->size))
		_exit(0);
	pthread_mutex_unlock(&send_lock);
}

/* The reason reaches the harness through the supervisor, which sees this frame before it sees the process end. */
void session_fail(const char *format, ...)
{
	struct out out = { 0 };
	char why[256];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	out_begin(&out, WIRE_ENDED, session_id, 0);
	out_u32(&out, 0);
	out_str(&out, why);
	session_send(&out);
	_exit(71);
}

/* From a signal handler: no allocation, and another thread may be in the middle of a frame. */
static void tell_fault(const siginfo_t *info, const ucontext_t *context)
{
	struct {
		struct wire_header h;
		int32_t status;
		uint32_t size;
		char text[200];
	} frame = { .h = { .magic = WIRE_MAGIC, .kind = WIRE_ENDED, .session = session_id } };
	unsigned long long pc;
	char where[96];

	if (!program_where(where, sizeof(where)))
		snprintf(where, sizeof(where), "%s %u", thread_does.what, thread_does.number);
#ifdef __x86_64__
	pc = context->uc_mcontext.gregs[REG_RIP];
#else
	pc = context->uc_mcontext.pc;
#endif
	/* The code and the place tell an access of the agent's own from what a kernel or an emulator made of one. */
	snprintf(frame.text, sizeof(frame.text), "%s touched 0x%llx: signal %d (%s, code %d at 0x%llx)", where,
		 (unsigned long long)(uintptr_t)info->si_addr, info->si_signo, info->si_signo == SIGBUS ? "Bus error" : "Segmentation fault", info->si_code, pc);
	frame.size = (uint32_t)strlen(frame.text);
	frame.h.length = (uint32_t)(8 + frame.size);
	for (int i = 0; i < 10000; i++) {
		if (!pthread_mutex_trylock(&send_lock)) {
			write_all(session_fd, &frame, sizeof(frame.h) + frame.h.length);
			return;
		}
		sched_yield();
	}
}

static void on_fault(int number, siginfo_t *info, void *context)
{
	struct sigaction action = { .sa_handler = SIG_DFL };

	/* Codes above 0 are the kernel's: it was this thread's own access. */
	if (info->si_code > 0 && fault_exit)
		siglongjmp(*fault_exit, 1);
	if (info->si_code > 0)
		tell_fault(info, context);
	sigaction(number, &action, NULL);
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), number);
}

static void on_kick(int number)
{
	(void)number;
}

int is_width(uint64_t width)
{
	return width == 1 || width == 2 || width == 4 || width == 8;
}

UNCHECKED void raw_copy(void *to, const void *from, size_t size)
{
#ifdef __SANITIZE_ADDRESS__
	for (size_t i = 0; i < size; i++)
		((volatile uint8_t *)to)[i] = ((const volatile uint8_t *)from)[i];
#else
	memmove(to, from, size);
#endif
}

/* One access, as the registers of a device want it, where the address is aligned. */
UNCHECKED uint64_t load(uint64_t address, uint32_t width)
{
	const void *at = (const void *)(uintptr_t)address;
	uint64_t value = 0;

	if (address % width) {
		raw_copy(&value, at, width);
		return value;
	}
	switch (width) {
	case 1: return __atomic_load_n((const uint8_t *)at, __ATOMIC_ACQUIRE);
	case 2: return __atomic_load_n((const uint16_t *)at, __ATOMIC_ACQUIRE);
	case 4: return __atomic_load_n((const uint32_t *)at, __ATOMIC_ACQUIRE);
	default: return __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
	}
}

UNCHECKED static void store(void *at, uint64_t value, size_t width)
{
	if ((uintptr_t)at % width) {
		raw_copy(at, &value, width);
		return;
	}
	switch (width) {
	case 1: __atomic_store_n((uint8_t *)at, (uint8_t)value, __ATOMIC_RELEASE); return;
	case 2: __atomic_store_n((uint16_t *)at, (uint16_t)value, __ATOMIC_RELEASE); return;
	case 4: __atomic_store_n((uint32_t *)at, (uint32_t)value, __ATOMIC_RELEASE); return;
	default: __atomic_store_n((uint64_t *)at, value, __ATOMIC_RELEASE); return;
	}
}

int memory_copy(void *to, const void *from, size_t size)
{
	sigjmp_buf here;

	if (!size)
		return 0;
	/* The mask needs no saving: the handler runs with SA_NODEFER. */
	if (sigsetjmp(here, 0)) {
		fault_exit = NULL;
		return -EFAULT;
	}
	fault_exit = &here;
	__asm__ volatile("" ::: "memory");
	if (is_width(size))
		store(to, load((uintptr_t)from, (uint32_t)size), size);
	else
		raw_copy(to, from, size);
	__asm__ volatile("" ::: "memory");
	fault_exit = NULL;
	return 0;
}

int value_meets(uint64_t value, uint64_t condition, uint64_t wanted)
{
	switch (condition) {
	case 0: return value == wanted;
	case 1: return value != wanted;
	case 2: return value >= wanted;
	default: return value < wanted;
	}
}

struct buffer {
	uint8_t *data;
	size_t capacity;
	size_t mapped;
	uint32_t flags;
};

/* The dispatching thread's own buffers: a SLOT that is made accessible when it is first used and a hole of the same size, MAX_BUFFERS times. */
static uint8_t *slots;
static int slot_open[MAX_BUFFERS];
static size_t slot_used[MAX_BUFFERS];
/* Its own too: results that later calls are made with. */
static struct {
	int there;
	uint64_t value;
} kept[MAX_KEPT];
static __thread int dispatches;

static int slot_get(struct buffer *b, unsigned int index)
{
	size_t dirty = slot_used[index] > b->capacity ? slot_used[index] : b->capacity;

	if (!slots) {
		slots = mmap(NULL, 2 * SLOT * MAX_BUFFERS, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (slots == MAP_FAILED) {
			slots = NULL;
			return -1;
		}
	}
	b->data = slots + 2 * SLOT * index;
	if (!slot_open[index] && mprotect(b->data, SLOT, PROT_READ | PROT_WRITE))
		return -1;
	slot_open[index] = 1;
	b->mapped = 0;
	/* The kernel may have written behind a buffer that was too short, and must not find that again: whole pages are cleared. */
	memset(b->data, 0, (dirty + 4095) & ~4095ul);
	slot_used[index] = b->capacity;
	return 0;
}

static int buffer_get(struct buffer *b, unsigned int index)
{
	if (dispatches && b->capacity <= SLOT)
		return slot_get(b, index);
	b->mapped = (b->capacity + SLOT - 1) / SLOT * SLOT + SLOT;
	b->data = mmap(NULL, b->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->data == MAP_FAILED)
		return -1;
	if (mprotect(b->data, b->mapped - SLOT, PROT_READ | PROT_WRITE)) {
		munmap(b->data, b->mapped);
		return -1;
	}
	return 0;
}

struct call {
	uint32_t number;
	unsigned int nbuffers;
	unsigned int nrelocations;
	unsigned int returned;
	uint64_t args[6];
	uint8_t which[6];
	unsigned int keep;	/* place of its result, from 1; 0: it is not kept */
	unsigned int missing;	/* place of a result that it is to be made with and that is not there, from 1 */
	struct buffer buffers[MAX_BUFFERS];
	unsigned int got;	/* buffers that there are */
	int no_memory;
};

static int is_place(const struct call *c, uint32_t which)
{
	return which < c->nbuffers || (which >= KEPT && which < KEPT + MAX_KEPT && dispatches);
}

/* The address of a buffer, or what was kept. */
static uint64_t base_of(struct call *c, uint32_t which)
{
	if (which < KEPT)
		return (uintptr_t)c->buffers[which].data;
	if (!kept[which - KEPT].there)
		c->missing = which - KEPT + 1;
	return kept[which - KEPT].value;
}

static const char *parse_buffers(struct call *c, struct in *in)
{
	size_t returned_bytes = 0;

	for (; c->got < c->nbuffers; c->got++) {
		struct buffer *b = &c->buffers[c->got];
		uint32_t size;
		const void *content;

		b->capacity = in_u32(in);
		b->flags = in_u32(in);
		size = in_u32(in);
		content = in_take(in, size);
		if (in->bad)
			return "CALL: its buffers are cut short";
		if (size > b->capacity)
			return "CALL: a buffer's content is longer than its capacity";
		if (b->flags & ~1u)
			return "CALL: a buffer has unknown flags";
		if (b->capacity > WIRE_MAX_PAYLOAD)
			return "CALL: a buffer is longer than 16 MiB";
		if (b->flags & 1) {
			c->returned++;
			returned_bytes += b->capacity + 4;
		}
		if (returned_bytes > WIRE_MAX_PAYLOAD - 64)
			return "CALL: what it wants back does not fit into a reply";
		if (buffer_get(b, c->got)) {
			c->no_memory = 1;
			return NULL;
		}
		memcpy(b->data, content, size);
	}
	return NULL;
}

static const char *parse_call(struct call *c, struct in *in)
{
	const char *malformed;

	c->number = in_u32(in);
	c->nbuffers = in_u16(in);
	c->nrelocations = in_u16(in);
	for (int i = 0; i < 6; i++)
		c->args[i] = in_u64(in);
	for (int i = 0; i < 6; i++)
		c->which[i] = in_u8(in);
	c->keep = in_u16(in);
	if (in->bad)
		return "CALL: its head is cut short";
	if (c->nbuffers > MAX_BUFFERS || c->nrelocations > MAX_RELOCATIONS)
		return "CALL: more than 64 buffers or 256 relocations";
	if (c->keep > MAX_KEPT || (c->keep && !dispatches))
		return "CALL: 64 results can be kept, and none of an offloaded call";
	for (int i = 0; i < 6; i++)
		if (c->which[i] != 0xff && !is_place(c, c->which[i]))
			return "CALL: an argument names a buffer or a result that is not there";
	malformed = parse_buffers(c, in);
	if (malformed || c->no_memory)
		return malformed;
	for (unsigned int i = 0; i < c->nrelocations; i++) {
		uint32_t buffer = in_u32(in), offset = in_u32(in), target = in_u32(in), addend = in_u32(in);
		uint64_t address;

		if (in->bad)
			return "CALL: its relocations are cut short";
		if (buffer >= c->nbuffers || !is_place(c, target))
			return "CALL: a relocation names a buffer or a result that is not there";
		if (c->buffers[buffer].capacity < 8 || offset > c->buffers[buffer].capacity - 8)
			return "CALL: a relocation lies outside its buffer";
		address = base_of(c, target) + addend;
		memcpy(c->buffers[buffer].data + offset, &address, sizeof(address));
	}
	for (int i = 0; i < 6; i++)
		if (c->which[i] != 0xff)
			c->args[i] += base_of(c, c->which[i]);
	return in->left ? "CALL: something follows its end" : NULL;
}

static int forks(uint32_t number)
{
#ifdef SYS_fork
	if (number == SYS_fork || number == SYS_vfork)
		return 1;
#endif
	return number == SYS_clone || number == SYS_clone3;
}

/* A child of a CALL is there for its parent's claims, not to answer the harness a second time. */
static void be_a_child(void) __attribute__((noreturn));

static void be_a_child(void)
{
	close(session_fd);
	for (;;)
		pause();
}

static void make_call(struct call *c, const struct wire_header *h, struct out *out)
{
	uint64_t began = now_ns(), took;
	long result;
	int error;

	result = syscall((long)c->number, c->args[0], c->args[1], c->args[2], c->args[3], c->args[4], c->args[5]);
	error = result == -1 ? errno : 0;
	took = now_ns() - began;
	if (c->keep) {
		kept[c->keep - 1].there = result != -1;
		kept[c->keep - 1].value = (uint64_t)result;
	}
	if (result == 0 && forks(c->number))
		be_a_child();
	out_reply(out, h);
	out_u64(out, (uint64_t)(int64_t)result);
	out_u32(out, (uint32_t)error);
	out_u32(out, c->returned);
	out_u64(out, took);
	for (unsigned int i = 0; i < c->nbuffers; i++)
		if (c->buffers[i].flags & 1)
			out_bytes(out, c->buffers[i].data, c->buffers[i].capacity);
}

static const char *do_call(const struct wire_header *h, struct in *in, struct out *out)
{
	struct call c;
	const char *malformed;

	c.returned = c.got = c.keep = c.missing = 0;
	c.no_memory = 0;
	malformed = parse_call(&c, in);
	thread_does = (struct doing){ "system call", c.number };
	if (c.no_memory)
		out_refuse(out, h, -ENOMEM, "no memory for a buffer of %zu bytes", c.buffers[c.got].capacity);
	else if (c.missing)
		out_refuse(out, h, -ECANCELED, "the call whose result this one is made with failed or was not made");
	else if (!malformed)
		make_call(&c, h, out);
	/* What was kept there before must not be taken for it. */
	if (!malformed && c.keep && (c.no_memory || c.missing))
		kept[c.keep - 1].there = 0;
	for (unsigned int i = 0; i < c.got; i++)
		if (c.buffers[i].mapped)
			munmap(c.buffers[i].data, c.buffers[i].mapped);
	return malformed;
}

static const char *do_read(const struct wire_header *h, struct in *in, struct out *out)
{
	uint64_t address = in_u64(in);
	uint32_t length = in_u32(in);

	if (in->bad || in->left)
		return "READ: 12 bytes are wanted";
	if (length > WIRE_MAX_PAYLOAD - 64) {
		out_refuse(out, h, -EMSGSIZE, "%u bytes do not fit into a reply", length);
		return NULL;
	}
	out_reply(out, h);
	out_u32(out, length);
	if (memory_copy(out_space(out, length), (const void *)(uintptr_t)address, length))
		out_refuse(out, h, -EFAULT, "%u bytes at 0x%llx cannot be read", length, (unsigned long long)address);
	return NULL;
}

static const char *do_write(const struct wire_header *h, struct in *in, struct out *out)
{
	uint64_t address = in_u64(in);
	uint32_t length = in_u32(in);
	const void *data = in_take(in, length);

	if (in->bad || in->left)
		return "WRITE: its length is not that of its data";
	if (memory_copy((void *)(uintptr_t)address, data, length))
		out_refuse(out, h, -EFAULT, "%u bytes at 0x%llx cannot be written", length, (unsigned long long)address);
	else
		out_reply(out, h);
	return NULL;
}

static void wait_a_little(unsigned int turns, uint64_t left)
{
	uint64_t span = turns < 256 ? 50000 : 500000;
	struct timespec pause = { .tv_nsec = (long)(left < span ? left : span) };

	if (turns < 64)
		sched_yield();
	else
		nanosleep(&pause, NULL);
}

static const char *do_await(const struct wire_header *h, struct in *in, struct out *out)
{
	uint64_t address = in_u64(in), mask, wanted, end, now, value = 0;
	uint32_t width = in_u32(in), condition = in_u32(in);
	int met = 0, error = 0;

	mask = in_u64(in);
	wanted = in_u64(in);
	end = later(now_ns(), in_u64(in));
	if (in->bad || in->left)
		return "AWAIT: 40 bytes are wanted";
	if (!is_width(width) || condition > 3)
		return "AWAIT: there is no such width or condition";
	for (unsigned int turns = 0; ; turns++) {
		error = memory_copy(&value, (const void *)(uintptr_t)address, width);
		value &= mask;
		met = !error && value_meets(value, condition, wanted);
		now = now_ns();
		if (error || met || now >= end)
			break;
		wait_a_little(turns, end - now);
	}
	if (error) {
		out_refuse(out, h, error, "%u bytes at 0x%llx cannot be read", width, (unsigned long long)address);
		return NULL;
	}
	out_reply(out, h);
	out_u32(out, (uint32_t)met);
	out_u64(out, value);
	return NULL;
}

static const char *no_such_request(const struct wire_header *h, struct in *in, struct out *out)
{
	(void)in;
	out_refuse(out, h, -ENOSYS, "a session has no request 0x%04x", h->kind);
	return NULL;
}

static request *find_request(uint16_t kind)
{
	switch (kind) {
	case WIRE_CALL: return do_call;
	case WIRE_READ: return do_read;
	case WIRE_WRITE: return do_write;
	case WIRE_AWAIT: return do_await;
	case WIRE_VCPU_START:
	case WIRE_VCPU_RESUME:
	case WIRE_VCPU_KICK:
	case WIRE_VCPU_STOP:
	case WIRE_VCPU_RECORDS: return vcpu_request;
	case WIRE_PROGRAM: return program_request;
	default: return no_such_request;
	}
}

static void handle(const struct wire_header *h, const uint8_t *payload, struct out *out)
{
	struct in in = { .at = payload, .left = h->length };
	const char *malformed;

	thread_does = (struct doing){ "request", h->kind };
	malformed = find_request(h->kind)(h, &in, out);
	if (malformed)
		session_fail("%s", malformed);
	session_send(out);
	/* A big reply must not be kept in memory for good. */
	if (out->capacity > (1u << 20))
		out_free(out);
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
	int error;

	if (!work)
		session_fail("out of memory");
	work->header = *h;
	memcpy(work->payload, payload, h->length);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, OFFLOAD_STACK);
	error = pthread_create(&thread, &attributes, offload_main, work);
	if (error)
		session_fail("no thread for an offloaded request: %s", strerror(error));
	pthread_attr_destroy(&attributes);
}

/* What has been read and not yet handled; at most one frame and what came with it. */
static struct {
	uint8_t *data;
	size_t head;
	size_t size;
	size_t capacity;
} inbox;

/* Reads until `wanted` bytes are there in one piece. Ends the session when the supervisor is gone. */
static const uint8_t *inbox_hold(size_t wanted)
{
	if (inbox.head + wanted > inbox.capacity) {
		memmove(inbox.data, inbox.data + inbox.head, inbox.size);
		inbox.head = 0;
	}
	if (wanted > inbox.capacity) {
		inbox.data = realloc(inbox.data, wanted);
		if (!inbox.data)
			session_fail("no memory for a request of %zu bytes", wanted);
		inbox.capacity = wanted;
	}
	while (inbox.size < wanted) {
		size_t end = inbox.head + inbox.size;
		ssize_t n = read(session_fd, inbox.data + end, inbox.capacity - end);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(0);
		inbox.size += (size_t)n;
	}
	return inbox.data + inbox.head;
}

static void inbox_drop(size_t size)
{
	inbox.head += size;
	inbox.size -= size;
	if (!inbox.size)
		inbox.head = 0;
}

void session_main(int fd, uint32_t id)
{
	struct sigaction fault = { .sa_sigaction = on_fault, .sa_flags = SA_NODEFER | SA_SIGINFO };
	/* Without SA_RESTART, so that a blocked call returns. */
	struct sigaction kick = { .sa_handler = on_kick };
	struct out out = { 0 };
	struct wire_header h;
	char name[16];

	session_fd = fd;
	session_id = id;
	dispatches = 1;
	inbox.capacity = 64u << 10;
	inbox.data = malloc(inbox.capacity);
	if (!inbox.data)
		die("out of memory");
	/* The kernel's own reports name the process. */
	snprintf(name, sizeof(name), "session %u", id);
	prctl(PR_SET_NAME, name);
	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGBUS, &fault, NULL);
	sigaction(SIGUSR1, &kick, NULL);
	for (;;) {
		const uint8_t *frame = inbox_hold(sizeof(h));

		memcpy(&h, frame, sizeof(h));
		frame = inbox_hold(sizeof(h) + h.length);
		if (h.flags & ~WIRE_OFFLOAD)
			session_fail("a request has unknown flags 0x%04x", h.flags);
		if (h.flags & WIRE_OFFLOAD)
			offload(&h, frame + sizeof(h));
		else
			handle(&h, frame + sizeof(h), &out);
		inbox_drop(sizeof(h) + h.length);
	}
}
