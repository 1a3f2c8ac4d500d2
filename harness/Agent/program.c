// SPDX-License-Identifier: MIT
/* Programs: lists of steps on threads, at native speed. Nothing is allocated and nothing is sent while they run. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

#define MAX_THREADS	64
#define MAX_STEPS	4096
#define MAX_ERRNOS	16

enum op { CALL = 1, STORE, ADD, AWAIT, LOOP, BARRIER, STOP, COPY };
enum end { ENDED, DEADLINE, STOPPED };

struct step {
	uint16_t op;
	uint16_t flags;
	uint32_t a;
	uint64_t args[7];
};

_Static_assert(sizeof(struct step) == 64, "step");

struct outcome {
	uint64_t runs;
	uint64_t failures;
	uint64_t total;
	uint64_t least;
	uint64_t most;
	uint32_t nerrnos;
	struct {
		int32_t error;
		uint64_t count;
	} errnos[MAX_ERRNOS + 1];
};

struct program;

struct thread {
	struct program *program;
	uint32_t count;
	uint32_t cpu;
	struct step *steps;
	struct outcome *outcomes;
	uint64_t *turns;
	pthread_t thread;
};

struct program {
	uint32_t count;
	struct thread threads[MAX_THREADS];
	_Atomic int stop;		/* an enum end; 0: go on */
	pthread_mutex_t lock;
	pthread_cond_t changed;		/* barrier and ends */
	uint32_t active;
	uint32_t waiting;
	uint64_t generation;
};

static void release_if_all(struct program *p)
{
	if (p->waiting && p->waiting == p->active) {
		p->waiting = 0;
		p->generation++;
		pthread_cond_broadcast(&p->changed);
	}
}

static void barrier(struct program *p)
{
	uint64_t generation;

	pthread_mutex_lock(&p->lock);
	generation = p->generation;
	p->waiting++;
	release_if_all(p);
	while (generation == p->generation && !p->stop)
		pthread_cond_wait(&p->changed, &p->lock);
	if (generation == p->generation)
		p->waiting--;
	pthread_mutex_unlock(&p->lock);
}

static void stop(struct program *p, enum end why)
{
	int running = 0;

	atomic_compare_exchange_strong(&p->stop, &running, why);
	pthread_mutex_lock(&p->lock);
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

static void count_errno(struct outcome *o, int error)
{
	uint32_t i;

	for (i = 0; i < o->nerrnos; i++)
		if (o->errnos[i].error == error)
			break;
	if (i == o->nerrnos) {
		if (i >= MAX_ERRNOS) {
			i = MAX_ERRNOS;
			error = 0x7fffffff;
		}
		o->errnos[i].error = error;
		if (i == o->nerrnos)
			o->nerrnos++;
	}
	o->errnos[i].count++;
}

static void call(struct program *p, const struct step *s, struct outcome *o)
{
	uint64_t began = now_ns(), took;
	long result = syscall((long)s->a, s->args[0], s->args[1], s->args[2], s->args[3], s->args[4], s->args[5]);
	int error = result == -1 ? errno : 0;

	took = now_ns() - began;
	o->total += took;
	if (took < o->least || o->runs == 1)
		o->least = took;
	if (took > o->most)
		o->most = took;
	if (s->flags & 2)
		*(volatile int64_t *)(uintptr_t)s->args[6] = error ? -(int64_t)error : result;
	if (error) {
		o->failures++;
		count_errno(o, error);
		if (s->flags & 1)
			stop(p, STOPPED);
	}
}

static void store(uint64_t address, uint32_t width, uint64_t value)
{
	void *at = (void *)(uintptr_t)address;

	switch (width) {
	case 1: __atomic_store_n((uint8_t *)at, (uint8_t)value, __ATOMIC_SEQ_CST); break;
	case 2: __atomic_store_n((uint16_t *)at, (uint16_t)value, __ATOMIC_SEQ_CST); break;
	case 4: __atomic_store_n((uint32_t *)at, (uint32_t)value, __ATOMIC_SEQ_CST); break;
	default: __atomic_store_n((uint64_t *)at, value, __ATOMIC_SEQ_CST); break;
	}
}

static void add(uint64_t address, uint32_t width, uint64_t delta)
{
	void *at = (void *)(uintptr_t)address;

	switch (width) {
	case 1: __atomic_fetch_add((uint8_t *)at, (uint8_t)delta, __ATOMIC_SEQ_CST); break;
	case 2: __atomic_fetch_add((uint16_t *)at, (uint16_t)delta, __ATOMIC_SEQ_CST); break;
	case 4: __atomic_fetch_add((uint32_t *)at, (uint32_t)delta, __ATOMIC_SEQ_CST); break;
	default: __atomic_fetch_add((uint64_t *)at, delta, __ATOMIC_SEQ_CST); break;
	}
}

static void run_steps(struct thread *t)
{
	struct program *p = t->program;
	uint32_t at = 0;

	while (at < t->count && !p->stop) {
		const struct step *s = &t->steps[at];
		struct outcome *o = &t->outcomes[at];
		uint64_t seen;

		o->runs++;
		switch (s->op) {
		case CALL:
			call(p, s, o);
			break;
		case STORE:
			store(s->args[0], s->a, s->args[1]);
			break;
		case ADD:
			add(s->args[0], s->a, s->args[1]);
			break;
		case AWAIT:
			while (memory_holds(s->args[0], s->a, (uint32_t)s->args[1], s->args[2], s->args[3], &seen) == 0 && !p->stop)
				sched_yield();
			break;
		case LOOP:
			if (!s->args[0] || t->turns[at]++ < s->args[0]) {
				at = s->a;
				continue;
			}
			t->turns[at] = 0;
			break;
		case BARRIER:
			barrier(p);
			break;
		case STOP:
			stop(p, STOPPED);
			break;
		case COPY:
			memmove((void *)(uintptr_t)s->args[0], (const void *)(uintptr_t)s->args[1], s->args[2]);
			break;
		}
		at++;
	}
}

static void *thread_main(void *argument)
{
	struct thread *t = argument;
	struct program *p = t->program;

	if (t->cpu != UINT32_MAX && t->cpu < CPU_SETSIZE) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(t->cpu, &set);
		sched_setaffinity(0, sizeof(set), &set);
	}
	barrier(p);
	run_steps(t);
	pthread_mutex_lock(&p->lock);
	p->active--;
	release_if_all(p);
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static int wait_for_threads(struct program *p, uint64_t deadline)
{
	pthread_mutex_lock(&p->lock);
	while (p->active) {
		if (!deadline && !p->stop) {
			pthread_cond_wait(&p->changed, &p->lock);
			continue;
		}
		/* After a stop, threads that block in a system call are interrupted until they see it. */
		uint64_t until = p->stop ? now_ns() + 2000000 : deadline;
		struct timespec t = { .tv_sec = (time_t)(until / 1000000000u), .tv_nsec = (long)(until % 1000000000u) };

		if (pthread_cond_timedwait(&p->changed, &p->lock, &t) != ETIMEDOUT)
			continue;
		if (!p->stop)
			p->stop = DEADLINE;
		pthread_cond_broadcast(&p->changed);
		for (uint32_t i = 0; i < p->count; i++)
			pthread_kill(p->threads[i].thread, SIGUSR1);
	}
	pthread_mutex_unlock(&p->lock);
	for (uint32_t i = 0; i < p->count; i++)
		pthread_join(p->threads[i].thread, NULL);
	return p->stop;
}

static int parse(struct program *p, struct in *in)
{
	for (uint32_t i = 0; i < p->count; i++) {
		struct thread *t = &p->threads[i];

		t->program = p;
		t->count = in_u32(in);
		t->cpu = in_u32(in);
		if (in->bad || t->count > MAX_STEPS)
			return -1;
		t->steps = calloc(t->count + 1, sizeof(*t->steps));
		t->outcomes = calloc(t->count + 1, sizeof(*t->outcomes));
		t->turns = calloc(t->count + 1, sizeof(*t->turns));
		if (!t->steps || !t->outcomes || !t->turns)
			session_fail("out of memory");
		memcpy(t->steps, in_take(in, t->count * sizeof(*t->steps)), in->bad ? 0 : t->count * sizeof(*t->steps));
		if (in->bad)
			return -1;
		for (uint32_t s = 0; s < t->count; s++) {
			const struct step *step = &t->steps[s];

			if (step->op < CALL || step->op > COPY)
				return -1;
			if (step->op == LOOP && step->a > s)
				return -1;
			if ((step->op == STORE || step->op == ADD) && step->a != 1 && step->a != 2 && step->a != 4 && step->a != 8)
				return -1;
		}
	}
	return 0;
}

static void discard(struct program *p)
{
	for (uint32_t i = 0; i < p->count; i++) {
		free(p->threads[i].steps);
		free(p->threads[i].outcomes);
		free(p->threads[i].turns);
	}
	free(p);
}

int program_request(const struct wire_header *h, struct in *in, struct out *out)
{
	struct program *p = calloc(1, sizeof(*p));
	pthread_condattr_t clock;
	uint64_t patience, began;
	int why;

	if (!p)
		session_fail("out of memory");
	patience = in_u64(in);
	p->count = in_u32(in);
	if (in->bad || p->count > MAX_THREADS) {
		p->count = 0;
		discard(p);
		return -1;
	}
	if (parse(p, in)) {
		discard(p);
		return -1;
	}
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&p->changed, &clock);
	p->active = p->count;
	began = now_ns();
	for (uint32_t i = 0; i < p->count; i++) {
		pthread_attr_t attributes;

		pthread_attr_init(&attributes);
		pthread_attr_setstacksize(&attributes, 128 * 1024);
		if (pthread_create(&p->threads[i].thread, &attributes, thread_main, &p->threads[i]))
			session_fail("no thread for a program");
		pthread_attr_destroy(&attributes);
	}
	why = wait_for_threads(p, patience ? began + patience : 0);

	out_reply(out, h);
	out_u32(out, (uint32_t)why);
	out_u64(out, now_ns() - began);
	for (uint32_t i = 0; i < p->count; i++) {
		struct thread *t = &p->threads[i];

		out_u32(out, t->count);
		for (uint32_t s = 0; s < t->count; s++) {
			const struct outcome *o = &t->outcomes[s];

			out_u64(out, o->runs);
			out_u64(out, o->failures);
			out_u64(out, o->total);
			out_u64(out, o->least);
			out_u64(out, o->most);
			out_u32(out, o->nerrnos);
			for (uint32_t e = 0; e < o->nerrnos; e++) {
				out_u32(out, (uint32_t)o->errnos[e].error);
				out_u32(out, 0);
				out_u64(out, o->errnos[e].count);
			}
		}
	}
	discard(p);
	return 0;
}
