// SPDX-License-Identifier: MIT
/* vCPU threads: a loop around one ioctl, whose exits are told, or recorded when a mark matches. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wire.h"

#define MAX_VCPUS	4096
#define MAX_RANGES	64
#define MAX_MARKS	64
#define MAX_CONDITIONS	16
#define MAX_WRITES	256
#define MAX_RECORDS	65536
#define MAX_RANGE_BYTES	(1u << 20)
#define VCPU_STACK	(128ul << 10)
/* What one reply with records may hold; the rest is for the next. */
#define RECORDS_REPLY	(8u << 20)

enum cause { EXITED, KICKED, FAILED, MARKED };
enum action { RECORD = 1, NOTIFY = 2 };

struct range {
	uint32_t base;
	uint32_t length;
	uint64_t offset;
};

struct condition {
	uint32_t offset;
	uint32_t width;
	uint64_t mask;
	uint64_t value;
};

struct mark {
	uint32_t id;
	uint32_t action;
	uint32_t count;
	struct condition conditions[MAX_CONDITIONS];
};

/* Followed by the ranges. */
struct record {
	uint64_t when;
	uint32_t mark;
	uint32_t unused;
};

struct vcpu {
	uint32_t id;
	int fd;
	unsigned long request;
	uint64_t run;
	uint32_t kick_offset;
	uint32_t nranges;
	struct range ranges[MAX_RANGES];
	size_t range_bytes;
	uint32_t nmarks;
	struct mark *marks;

	pthread_t thread;
	pid_t tid;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int stopped;
	int quit;
	int kicked;
	uint64_t exits;

	uint8_t *records;	/* a ring of `room` */
	uint32_t room;
	uint32_t first;
	uint32_t nrecords;
	uint64_t dropped;
};

static struct vcpu *vcpus[MAX_VCPUS];
static uint32_t nvcpus;
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t address_of(const struct vcpu *v, uint32_t base, uint64_t offset)
{
	return (base ? 0 : v->run) + offset;
}

/* 0, or the index of the range that cannot be read, and one. */
static uint32_t copy_ranges(const struct vcpu *v, uint8_t *to)
{
	for (uint32_t i = 0; i < v->nranges; i++) {
		const struct range *r = &v->ranges[i];

		if (memory_copy(to, (const void *)(uintptr_t)address_of(v, r->base, r->offset), r->length))
			return i + 1;
		to += r->length;
	}
	return 0;
}

static void take_ranges(const struct vcpu *v, uint8_t *to)
{
	uint32_t bad = copy_ranges(v, to);

	if (bad)
		session_fail("vCPU thread %u: its range %u is no longer mapped", v->id, bad - 1);
}

static void tell(struct vcpu *v, struct out *out, enum cause cause, int error, uint32_t mark)
{
	out_begin(out, WIRE_VCPU_EXIT, session_id, 0);
	out_u32(out, v->id);
	out_u32(out, cause);
	out_u32(out, (uint32_t)error);
	out_u32(out, mark);
	out_u64(out, now_ns());
	out_u64(out, v->exits);
	out_u32(out, (uint32_t)v->range_bytes);
	take_ranges(v, out_space(out, v->range_bytes));
	session_send(out);
}

static const struct mark *find_mark(const struct vcpu *v)
{
	for (uint32_t i = 0; i < v->nmarks; i++) {
		const struct mark *m = &v->marks[i];
		uint32_t k;

		for (k = 0; k < m->count; k++) {
			const struct condition *c = &m->conditions[k];

			if ((load(v->run + c->offset, c->width) & c->mask) != c->value)
				break;
		}
		if (k == m->count)
			return m;
	}
	return NULL;
}

static struct record *record_at(const struct vcpu *v, uint32_t index)
{
	return (struct record *)(v->records + (size_t)((v->first + index) % v->room) * ((sizeof(struct record) + v->range_bytes + 7) & ~7ul));
}

/* Twice the room, in order again. */
static int grow_records(struct vcpu *v)
{
	size_t size = (sizeof(struct record) + v->range_bytes + 7) & ~7ul;
	uint32_t room = v->room ? v->room * 2 : 64;
	uint8_t *records = malloc(room * size);

	if (!records)
		return -1;
	for (uint32_t i = 0; i < v->nrecords; i++)
		memcpy(records + i * size, record_at(v, i), size);
	free(v->records);
	v->records = records;
	v->room = room;
	v->first = 0;
	return 0;
}

static void keep_record(struct vcpu *v, uint32_t mark)
{
	pthread_mutex_lock(&v->lock);
	if (v->nrecords == MAX_RECORDS || (v->nrecords == v->room && grow_records(v))) {
		v->dropped++;
	} else {
		struct record *r = record_at(v, v->nrecords++);

		r->when = now_ns();
		r->mark = mark;
		take_ranges(v, (uint8_t *)(r + 1));
	}
	pthread_mutex_unlock(&v->lock);
}

/* 0 when the thread is to end. */
static int wait_for_resume(struct vcpu *v)
{
	int quit;

	pthread_mutex_lock(&v->lock);
	while (v->stopped && !v->quit)
		pthread_cond_wait(&v->changed, &v->lock);
	quit = v->quit;
	pthread_mutex_unlock(&v->lock);
	return !quit;
}

/* Stopped before it is told, so that a resume which answers the notice at once is not refused. */
static void stop_and_tell(struct vcpu *v, struct out *out, enum cause cause, int error)
{
	pthread_mutex_lock(&v->lock);
	v->stopped = 1;
	if (!v->quit)
		tell(v, out, cause, error, 0);
	pthread_mutex_unlock(&v->lock);
}

static int take_kick(struct vcpu *v)
{
	int kicked;

	pthread_mutex_lock(&v->lock);
	kicked = v->kicked;
	v->kicked = 0;
	*(volatile uint8_t *)(uintptr_t)(v->run + v->kick_offset) = 0;
	pthread_mutex_unlock(&v->lock);
	return kicked;
}

static void *vcpu_main(void *argument)
{
	struct vcpu *v = argument;
	struct out out = { 0 };
	char name[16];

	thread_does = (struct doing){ "vCPU thread", v->id };
	snprintf(name, sizeof(name), "vcpu %u", v->id);
	prctl(PR_SET_NAME, name);
	pthread_mutex_lock(&v->lock);
	v->tid = (pid_t)syscall(SYS_gettid);
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	while (wait_for_resume(v)) {
		int error = ioctl(v->fd, v->request, 0) < 0 ? errno : 0;
		const struct mark *m;

		if (error == EINTR) {
			if (take_kick(v))
				stop_and_tell(v, &out, KICKED, 0);
			continue;
		}
		if (error) {
			stop_and_tell(v, &out, FAILED, error);
			continue;
		}
		v->exits++;
		m = find_mark(v);
		if (!m) {
			stop_and_tell(v, &out, EXITED, 0);
			continue;
		}
		if (m->action & RECORD)
			keep_record(v, m->id);
		if (m->action & NOTIFY)
			tell(v, &out, MARKED, 0, m->id);
	}
	out_free(&out);
	return NULL;
}

static const char *parse_ranges(struct vcpu *v, struct in *in)
{
	v->nranges = in_u32(in);
	if (in->bad || v->nranges > MAX_RANGES)
		return "VCPU_START: more than 64 ranges";
	for (uint32_t i = 0; i < v->nranges; i++) {
		struct range *r = &v->ranges[i];

		r->base = in_u32(in);
		r->length = in_u32(in);
		r->offset = in_u64(in);
		if (in->bad)
			return "VCPU_START: its ranges are cut short";
		if (r->base > 1)
			return "VCPU_START: a range has an unknown base";
		if (r->length > MAX_RANGE_BYTES - v->range_bytes)
			return "VCPU_START: its ranges are longer than 1 MiB";
		v->range_bytes += r->length;
	}
	return NULL;
}

static const char *parse_marks(struct vcpu *v, struct in *in)
{
	uint32_t count = in_u32(in);

	if (in->bad || count > MAX_MARKS)
		return "VCPU_START: more than 64 marks";
	v->marks = calloc(count + 1, sizeof(*v->marks));
	if (!v->marks)
		session_fail("out of memory");
	for (v->nmarks = 0; v->nmarks < count; v->nmarks++) {
		struct mark *m = &v->marks[v->nmarks];

		m->id = in_u32(in);
		m->action = in_u32(in);
		m->count = in_u32(in);
		if (in->bad)
			return "VCPU_START: its marks are cut short";
		if (m->count > MAX_CONDITIONS || m->action & ~(uint32_t)(RECORD | NOTIFY))
			return "VCPU_START: a mark has more than 16 conditions or an unknown action";
		for (uint32_t k = 0; k < m->count; k++) {
			struct condition *c = &m->conditions[k];

			c->offset = in_u32(in);
			c->width = in_u32(in);
			c->mask = in_u64(in);
			c->value = in_u64(in);
			if (!in->bad && !is_width(c->width))
				return "VCPU_START: a condition has no such width";
		}
	}
	return in->bad ? "VCPU_START: its marks are cut short" : NULL;
}

static const char *parse_start(struct vcpu *v, struct in *in)
{
	const char *malformed;
	uint32_t flags;

	v->fd = (int)in_u32(in);
	v->request = in_u32(in);
	v->run = in_u64(in);
	v->kick_offset = in_u32(in);
	flags = in_u32(in);
	v->stopped = flags & 1;
	if (flags & ~1u)
		return "VCPU_START: unknown flags";
	malformed = parse_ranges(v, in);
	if (!malformed)
		malformed = parse_marks(v, in);
	return malformed ? malformed : in->left ? "VCPU_START: something follows its end" : NULL;
}

/* What the thread would fault on is refused while it can be. The run structure must be writable: a kick is written to it. */
static int refuse_unmapped(const struct vcpu *v, const struct wire_header *h, struct out *out)
{
	uint8_t *kick = (uint8_t *)(uintptr_t)(v->run + v->kick_offset), byte;
	uint8_t *scratch = malloc(v->range_bytes + 1);
	uint32_t bad;
	uint64_t value;

	if (!scratch)
		session_fail("out of memory");
	bad = copy_ranges(v, scratch);
	free(scratch);
	if (bad) {
		out_refuse(out, h, -EFAULT, "range %u of the vCPU is not mapped", bad - 1);
		return 1;
	}
	if (memory_copy(&byte, kick, 1) || memory_copy(kick, &byte, 1)) {
		out_refuse(out, h, -EFAULT, "there is no run structure at 0x%llx", (unsigned long long)v->run);
		return 1;
	}
	for (uint32_t i = 0; i < v->nmarks; i++) {
		for (uint32_t k = 0; k < v->marks[i].count; k++) {
			const struct condition *c = &v->marks[i].conditions[k];

			if (memory_copy(&value, (const void *)(uintptr_t)(v->run + c->offset), c->width)) {
				out_refuse(out, h, -EFAULT, "mark %u looks outside of the run structure", v->marks[i].id);
				return 1;
			}
		}
	}
	return 0;
}

static void discard(struct vcpu *v)
{
	free(v->marks);
	free(v);
}

static int enter(struct vcpu *v)
{
	int entered;

	pthread_mutex_lock(&table_lock);
	entered = nvcpus < MAX_VCPUS;
	if (entered) {
		v->id = nvcpus;
		vcpus[nvcpus++] = v;
	}
	pthread_mutex_unlock(&table_lock);
	return entered;
}

static void run(struct vcpu *v)
{
	pthread_attr_t attributes;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, VCPU_STACK);
	error = pthread_create(&v->thread, &attributes, vcpu_main, v);
	if (error)
		session_fail("no thread for a vCPU: %s", strerror(error));
	pthread_attr_destroy(&attributes);
	pthread_mutex_lock(&v->lock);
	while (!v->tid)
		pthread_cond_wait(&v->changed, &v->lock);
	pthread_mutex_unlock(&v->lock);
}

static const char *start(const struct wire_header *h, struct in *in, struct out *out)
{
	struct vcpu *v = calloc(1, sizeof(*v));
	const char *malformed;

	if (!v)
		session_fail("out of memory");
	malformed = parse_start(v, in);
	if (malformed || refuse_unmapped(v, h, out)) {
		discard(v);
		return malformed;
	}
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->changed, NULL);
	if (!enter(v)) {
		discard(v);
		out_refuse(out, h, -ENOSPC, "a session may start %u vCPU threads", MAX_VCPUS);
		return NULL;
	}
	run(v);
	out_reply(out, h);
	out_u32(out, v->id);
	out_u32(out, (uint32_t)v->tid);
	return NULL;
}

static const char *resume(struct vcpu *v, const struct wire_header *h, struct in *in, struct out *out)
{
	uint32_t n = in_u32(in);
	struct in writes;
	int stopped;

	if (in->bad || n > MAX_WRITES)
		return "VCPU_RESUME: more than 256 writes";
	/* Nothing is written of a request that turns out to be malformed. */
	writes = *in;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t base = in_u32(in);

		in_take(in, 12);
		in_take(in, in_u32(in));
		if (in->bad || base > 1)
			return "VCPU_RESUME: its writes are cut short or have an unknown base";
	}
	if (in->left)
		return "VCPU_RESUME: something follows its end";
	pthread_mutex_lock(&v->lock);
	stopped = v->stopped;
	pthread_mutex_unlock(&v->lock);
	if (!stopped) {
		out_refuse(out, h, -EBUSY, "vCPU thread %u is not stopped", v->id);
		return NULL;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t base = in_u32(&writes), size;
		uint64_t offset;
		const void *data;

		in_u32(&writes);
		offset = in_u64(&writes);
		size = in_u32(&writes);
		data = in_take(&writes, size);
		if (memory_copy((void *)(uintptr_t)address_of(v, base, offset), data, size)) {
			out_refuse(out, h, -EFAULT, "write %u cannot be made; the vCPU stays stopped", i);
			return NULL;
		}
	}
	pthread_mutex_lock(&v->lock);
	v->stopped = 0;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	out_reply(out, h);
	return NULL;
}

/* The byte ends an entry that is about to happen, the signal one that has. */
static void kick(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	v->kicked = 1;
	*(volatile uint8_t *)(uintptr_t)(v->run + v->kick_offset) = 1;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	syscall(SYS_tgkill, getpid(), v->tid, SIGUSR1);
}

static void give_records(struct vcpu *v, const struct wire_header *h, struct out *out)
{
	size_t each = 20 + v->range_bytes;
	uint32_t n;

	pthread_mutex_lock(&v->lock);
	n = v->nrecords * each > RECORDS_REPLY ? (uint32_t)(RECORDS_REPLY / each) : v->nrecords;
	out_reply(out, h);
	out_u64(out, v->dropped);
	out_u32(out, v->nrecords - n);
	out_u32(out, n);
	for (uint32_t i = 0; i < n; i++) {
		const struct record *r = record_at(v, i);

		out_u32(out, r->mark);
		out_u32(out, 0);
		out_u64(out, r->when);
		out_bytes(out, r + 1, v->range_bytes);
	}
	if (n)
		v->first = (v->first + n) % v->room;
	v->nrecords -= n;
	v->dropped = 0;
	pthread_mutex_unlock(&v->lock);
}

static struct vcpu *find(uint32_t id)
{
	struct vcpu *v;

	pthread_mutex_lock(&table_lock);
	v = id < nvcpus ? vcpus[id] : NULL;
	pthread_mutex_unlock(&table_lock);
	return v;
}

/* Whether the thread is one that still runs; the one who stops it is the first to ask. */
static int is_live(struct vcpu *v, int stop)
{
	int live;

	pthread_mutex_lock(&v->lock);
	live = v->tid && !v->quit;
	v->quit |= stop;
	pthread_mutex_unlock(&v->lock);
	return live;
}

const char *vcpu_request(const struct wire_header *h, struct in *in, struct out *out)
{
	struct vcpu *v;
	uint32_t id;

	if (h->kind == WIRE_VCPU_START)
		return start(h, in, out);
	id = in_u32(in);
	if (in->bad || (in->left && h->kind != WIRE_VCPU_RESUME))
		return "a request to a vCPU thread is cut short or too long";
	v = find(id);
	if (!v || (h->kind != WIRE_VCPU_RECORDS && !is_live(v, h->kind == WIRE_VCPU_STOP))) {
		out_refuse(out, h, -ENOENT, "there is no vCPU thread %u", id);
		return NULL;
	}
	switch (h->kind) {
	case WIRE_VCPU_RESUME:
		return resume(v, h, in, out);
	case WIRE_VCPU_KICK:
		kick(v);
		out_reply(out, h);
		return NULL;
	case WIRE_VCPU_STOP:
		kick(v);
		pthread_join(v->thread, NULL);
		out_reply(out, h);
		return NULL;
	default:
		give_records(v, h, out);
		return NULL;
	}
}
