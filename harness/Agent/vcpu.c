// SPDX-License-Identifier: MIT
/* vCPU threads: a loop around one ioctl, whose exits are told, or recorded when a mark matches. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wire.h"

#define MAX_VCPUS	1024
#define MAX_RANGES	16
#define MAX_MARKS	32
#define MAX_CONDITIONS	8
#define MAX_WRITES	64
#define MAX_RECORDS	65536
#define MAX_RANGE	65536

enum cause { EXITED, KICKED, FAILED, MARKED };

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

struct record {
	uint32_t mark;
	uint64_t when;
	size_t size;
	uint8_t *data;
};

struct vcpu {
	uint32_t id;
	int fd;
	unsigned long request;
	uint8_t *run;
	uint32_t kick_offset;
	uint32_t nranges;
	struct range ranges[MAX_RANGES];
	size_t range_bytes;
	uint32_t nmarks;
	struct mark marks[MAX_MARKS];

	pthread_t thread;
	pid_t tid;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int stopped;
	int quit;
	int kicked;
	uint64_t exits;

	struct record *records;
	size_t nrecords;
	uint64_t dropped;
};

static struct vcpu *vcpus[MAX_VCPUS];
static uint32_t nvcpus;
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

static const uint8_t *base_of(const struct vcpu *v, uint32_t base, uint64_t offset)
{
	return (base == 0 ? v->run : (uint8_t *)0) + offset;
}

static void copy_ranges(const struct vcpu *v, uint8_t *to)
{
	for (uint32_t i = 0; i < v->nranges; i++) {
		memcpy(to, base_of(v, v->ranges[i].base, v->ranges[i].offset), v->ranges[i].length);
		to += v->ranges[i].length;
	}
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
	copy_ranges(v, out_space(out, v->range_bytes));
	session_send(out);
}

static const struct mark *find_mark(const struct vcpu *v)
{
	for (uint32_t i = 0; i < v->nmarks; i++) {
		const struct mark *m = &v->marks[i];
		uint32_t k;

		for (k = 0; k < m->count; k++) {
			uint64_t value = 0;

			memcpy(&value, v->run + m->conditions[k].offset, m->conditions[k].width);
			if ((value & m->conditions[k].mask) != m->conditions[k].value)
				break;
		}
		if (k == m->count)
			return m;
	}
	return NULL;
}

static void keep_record(struct vcpu *v, uint32_t mark)
{
	struct record *r;

	pthread_mutex_lock(&v->lock);
	if (!v->records)
		v->records = calloc(MAX_RECORDS, sizeof(*v->records));
	if (!v->records || v->nrecords == MAX_RECORDS) {
		v->dropped++;
	} else {
		r = &v->records[v->nrecords];
		r->mark = mark;
		r->when = now_ns();
		r->size = v->range_bytes;
		r->data = malloc(r->size ? r->size : 1);
		if (r->data) {
			copy_ranges(v, r->data);
			v->nrecords++;
		} else {
			v->dropped++;
		}
	}
	pthread_mutex_unlock(&v->lock);
}

/* Returns 0 when the thread is to end. */
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
	*(volatile uint8_t *)(v->run + v->kick_offset) = 0;
	pthread_mutex_unlock(&v->lock);
	return kicked;
}

static void *vcpu_main(void *argument)
{
	struct vcpu *v = argument;
	struct out out = { 0 };

	pthread_mutex_lock(&v->lock);
	v->tid = (pid_t)syscall(SYS_gettid);
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	while (wait_for_resume(v)) {
		const struct mark *m;
		int error = ioctl(v->fd, v->request, 0) < 0 ? errno : 0;

		v->exits++;
		if (error == EINTR) {
			if (take_kick(v))
				stop_and_tell(v, &out, KICKED, 0);
			continue;
		}
		if (error) {
			stop_and_tell(v, &out, FAILED, error);
			continue;
		}
		m = find_mark(v);
		if (!m) {
			stop_and_tell(v, &out, EXITED, 0);
			continue;
		}
		if (m->action & 1)
			keep_record(v, m->id);
		if (m->action & 2)
			tell(v, &out, MARKED, 0, m->id);
	}
	out_free(&out);
	return NULL;
}

static int start(const struct wire_header *h, struct in *in, struct out *out)
{
	struct vcpu *v = calloc(1, sizeof(*v));
	pthread_attr_t attributes;
	uint32_t flags;

	if (!v)
		session_fail("out of memory");
	v->fd = (int)in_u32(in);
	v->request = in_u32(in);
	v->run = (uint8_t *)(uintptr_t)in_u64(in);
	v->kick_offset = in_u32(in);
	flags = in_u32(in);
	v->nranges = in_u32(in);
	if (in->bad || v->nranges > MAX_RANGES)
		goto malformed;
	for (uint32_t i = 0; i < v->nranges; i++) {
		v->ranges[i].base = in_u32(in);
		v->ranges[i].length = in_u32(in);
		v->ranges[i].offset = in_u64(in);
		if (v->ranges[i].base > 1 || v->ranges[i].length > MAX_RANGE)
			goto malformed;
		v->range_bytes += v->ranges[i].length;
	}
	v->nmarks = in_u32(in);
	if (in->bad || v->nmarks > MAX_MARKS)
		goto malformed;
	for (uint32_t i = 0; i < v->nmarks; i++) {
		struct mark *m = &v->marks[i];

		m->id = in_u32(in);
		m->action = in_u32(in);
		m->count = in_u32(in);
		if (in->bad || m->count > MAX_CONDITIONS)
			goto malformed;
		for (uint32_t k = 0; k < m->count; k++) {
			m->conditions[k].offset = in_u32(in);
			m->conditions[k].width = in_u32(in);
			m->conditions[k].mask = in_u64(in);
			m->conditions[k].value = in_u64(in);
			if (m->conditions[k].width > 8)
				goto malformed;
		}
	}
	if (in->bad)
		goto malformed;
	v->stopped = flags & 1;
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->changed, NULL);

	pthread_mutex_lock(&table_lock);
	if (nvcpus == MAX_VCPUS) {
		pthread_mutex_unlock(&table_lock);
		free(v);
		out_refuse(out, h, -ENOSPC, "too many vCPU threads in this session");
		return 0;
	}
	v->id = nvcpus;
	vcpus[nvcpus++] = v;
	pthread_mutex_unlock(&table_lock);

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 128 * 1024);
	if (pthread_create(&v->thread, &attributes, vcpu_main, v))
		session_fail("no thread for a vCPU");
	pthread_attr_destroy(&attributes);
	pthread_mutex_lock(&v->lock);
	while (!v->tid)
		pthread_cond_wait(&v->changed, &v->lock);
	pthread_mutex_unlock(&v->lock);
	out_reply(out, h);
	out_u32(out, v->id);
	out_u32(out, (uint32_t)v->tid);
	return 0;

malformed:
	free(v);
	return -1;
}

static int resume(struct vcpu *v, const struct wire_header *h, struct in *in, struct out *out)
{
	uint32_t n = in_u32(in);
	int busy;

	if (in->bad || n > MAX_WRITES)
		return -1;
	pthread_mutex_lock(&v->lock);
	busy = !v->stopped;
	pthread_mutex_unlock(&v->lock);
	if (busy) {
		out_refuse(out, h, -EBUSY, "the vCPU is not stopped");
		return 0;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t base = in_u32(in), size;
		uint64_t offset;
		const void *data;

		in_u32(in);
		offset = in_u64(in);
		size = in_u32(in);
		data = in_take(in, size);
		if (in->bad || base > 1)
			return -1;
		memcpy((void *)(uintptr_t)base_of(v, base, offset), data, size);
	}
	pthread_mutex_lock(&v->lock);
	v->stopped = 0;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	out_reply(out, h);
	return 0;
}

static void kick(struct vcpu *v, int quit)
{
	pthread_mutex_lock(&v->lock);
	v->kicked = 1;
	v->quit |= quit;
	*(volatile uint8_t *)(v->run + v->kick_offset) = 1;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	syscall(SYS_tgkill, getpid(), v->tid, SIGUSR1);
}

static void give_records(struct vcpu *v, const struct wire_header *h, struct out *out)
{
	pthread_mutex_lock(&v->lock);
	out_reply(out, h);
	out_u64(out, v->dropped);
	out_u32(out, (uint32_t)v->nrecords);
	for (size_t i = 0; i < v->nrecords; i++) {
		out_u32(out, v->records[i].mark);
		out_u32(out, 0);
		out_u64(out, v->records[i].when);
		out_bytes(out, v->records[i].data, v->records[i].size);
		free(v->records[i].data);
	}
	v->nrecords = 0;
	v->dropped = 0;
	pthread_mutex_unlock(&v->lock);
}

int vcpu_request(const struct wire_header *h, struct in *in, struct out *out)
{
	struct vcpu *v = NULL;
	uint32_t id;

	if (h->kind == WIRE_VCPU_START)
		return start(h, in, out);
	id = in_u32(in);
	if (in->bad)
		return -1;
	pthread_mutex_lock(&table_lock);
	if (id < nvcpus)
		v = vcpus[id];
	pthread_mutex_unlock(&table_lock);
	if (!v || (v->quit && h->kind != WIRE_VCPU_RECORDS)) {
		out_refuse(out, h, -ENOENT, "no such vCPU thread");
		return 0;
	}
	switch (h->kind) {
	case WIRE_VCPU_RESUME:
		return resume(v, h, in, out);
	case WIRE_VCPU_KICK:
		kick(v, 0);
		out_reply(out, h);
		return 0;
	case WIRE_VCPU_STOP:
		kick(v, 1);
		pthread_join(v->thread, NULL);
		out_reply(out, h);
		return 0;
	default:
		give_records(v, h, out);
		return 0;
	}
}
