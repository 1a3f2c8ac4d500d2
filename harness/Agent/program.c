// SPDX-License-Identifier: MIT
/* Programs: lists of steps on threads, at native speed. Nothing is allocated and nothing is sent while they run. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

#define MAX_THREADS	64
/* Of all threads together: their outcomes fit into one reply. */
#define MAX_STEPS	16384
#define MAX_ERRNOS	16
#define OTHER_ERRNOS	0x7fffffff
#define PROGRAM_STACK	(128ul << 10)
#define ANY_CPU		UINT32_MAX
/* How long a barrier and an AWAIT spin before they sleep or yield. */
#define SPINS		200
/* A thread that blocks in a call is interrupted again after so long, until it has seen that the program is over. */
#define NUDGE_NS	2000000

enum op { CALL = 1, STORE, ADD, AWAIT, LOOP, BARRIER, STOP, COPY };
enum call_flag { STOP_ON_FAILURE = 1, KEEP_RESULT = 2 };
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
	} errnos[MAX_ERRNOS];
};

struct program;

struct thread {
	struct program *program;
	uint32_t index;
	uint32_t count;
	uint32_t cpu;
	uint32_t at;
	struct step *steps;
	struct outcome *outcomes;
	uint64_t *turns;	/* of each LOOP, since it was entered */
	pthread_t thread;
};

struct program {
	uint32_t count;
	struct thread threads[MAX_THREADS];
	_Atomic int end;		/* why it is over; ENDED while it is not */
	pthread_mutex_t lock;
	pthread_cond_t changed;		/* a thread has ended, or the program is over */
	uint32_t active;
	uint32_t waiting;		/* at the barrier */
	_Atomic uint32_t passed;	/* barriers that everybody has reached */
	_Atomic uint32_t pulse;		/* what waiting threads sleep on */
};

static __thread struct thread *self;

int program_where(char *text, size_t size)
{
	if (!self)
		return 0;
	snprintf(text, size, "program thread %u, step %u,", self->index, self->at);
	return 1;
}

static int is_over(struct program *p)
{
	return atomic_load_explicit(&p->end, memory_order_relaxed) != ENDED;
}

static void wake(struct program *p)
{
	atomic_fetch_add(&p->pulse, 1);
	syscall(SYS_futex, &p->pulse, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void stop(struct program *p, enum end why)
{
	int running = ENDED;

	if (!atomic_compare_exchange_strong(&p->end, &running, why))
		return;
	wake(p);
	pthread_mutex_lock(&p->lock);
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

/* With the lock held. Whoever arrives last, or ends while all others wait, lets them through. */
static void pass_if_all(struct program *p)
{
	if (!p->waiting || p->waiting != p->active)
		return;
	p->waiting = 0;
	atomic_fetch_add(&p->passed, 1);
	wake(p);
}

/* Whether the barrier was passed; otherwise the program is over. */
static int barrier(struct program *p)
{
	uint32_t before;

	pthread_mutex_lock(&p->lock);
	before = atomic_load(&p->passed);
	p->waiting++;
	pass_if_all(p);
	pthread_mutex_unlock(&p->lock);
	for (unsigned int i = 0; ; i++) {
		uint32_t pulse = atomic_load(&p->pulse);

		if (atomic_load(&p->passed) != before)
			return 1;
		if (is_over(p))
			return 0;
		if (i < SPINS)
			relax();
		else
			syscall(SYS_futex, &p->pulse, FUTEX_WAIT_PRIVATE, pulse, NULL, NULL, 0);
	}
}

static void count_errno(struct outcome *o, int error)
{
	uint32_t i;

	for (i = 0; i < o->nerrnos; i++)
		if (o->errnos[i].error == error)
			break;
	if (i == MAX_ERRNOS - 1 && o->nerrnos < MAX_ERRNOS)
		error = OTHER_ERRNOS;
	if (i == MAX_ERRNOS)
		i = MAX_ERRNOS - 1;
	if (i == o->nerrnos)
		o->errnos[o->nerrnos++].error = error;
	o->errnos[i].count++;
}

/* 0 when the call was cut short because the program is over: that is no result of the call. */
UNCHECKED static int call(struct program *p, const struct step *s, struct outcome *o)
{
	uint64_t began = now_ns(), took;
	long result = syscall((long)s->a, s->args[0], s->args[1], s->args[2], s->args[3], s->args[4], s->args[5]);
	int error = result == -1 ? errno : 0;

	took = now_ns() - began;
	if (error == EINTR && is_over(p))
		return 0;
	o->total += took;
	if (took < o->least || !o->runs)
		o->least = took;
	if (took > o->most)
		o->most = took;
	if (s->flags & KEEP_RESULT)
		__atomic_store_n((int64_t *)(uintptr_t)s->args[6], error ? -(int64_t)error : result, __ATOMIC_RELEASE);
	if (error) {
		o->failures++;
		count_errno(o, error);
		if (s->flags & STOP_ON_FAILURE)
			stop(p, STOPPED);
	}
	return 1;
}

UNCHECKED static void store(uint64_t address, uint32_t width, uint64_t value)
{
	void *at = (void *)(uintptr_t)address;

	switch (width) {
	case 1: __atomic_store_n((uint8_t *)at, (uint8_t)value, __ATOMIC_SEQ_CST); break;
	case 2: __atomic_store_n((uint16_t *)at, (uint16_t)value, __ATOMIC_SEQ_CST); break;
	case 4: __atomic_store_n((uint32_t *)at, (uint32_t)value, __ATOMIC_SEQ_CST); break;
	default: __atomic_store_n((uint64_t *)at, value, __ATOMIC_SEQ_CST); break;
	}
}

UNCHECKED static void add(uint64_t address, uint32_t width, uint64_t delta)
{
	void *at = (void *)(uintptr_t)address;

	switch (width) {
	case 1: __atomic_fetch_add((uint8_t *)at, (uint8_t)delta, __ATOMIC_SEQ_CST); break;
	case 2: __atomic_fetch_add((uint16_t *)at, (uint16_t)delta, __ATOMIC_SEQ_CST); break;
	case 4: __atomic_fetch_add((uint32_t *)at, (uint32_t)delta, __ATOMIC_SEQ_CST); break;
	default: __atomic_fetch_add((uint64_t *)at, delta, __ATOMIC_SEQ_CST); break;
	}
}

/* Whether the condition was met; otherwise the program is over. */
static int await(struct program *p, const struct step *s)
{
	for (unsigned int i = 0; !value_meets(load(s->args[0], s->a) & s->args[2], s->args[1], s->args[3]); i++) {
		if (is_over(p))
			return 0;
		if (i % SPINS)
			relax();
		else
			sched_yield();
	}
	return 1;
}

static void run_steps(struct thread *t)
{
	struct program *p = t->program;
	uint32_t at = 0;

	while (at < t->count && !is_over(p)) {
		const struct step *s = &t->steps[at];
		struct outcome *o = &t->outcomes[at];
		int done = 1;

		t->at = at;
		switch (s->op) {
		case CALL:
			done = call(p, s, o);
			break;
		case STORE:
			store(s->args[0], s->a, s->args[1]);
			break;
		case ADD:
			add(s->args[0], s->a, s->args[1]);
			break;
		case AWAIT:
			done = await(p, s);
			break;
		case LOOP:
			if (!s->args[0] || t->turns[at] < s->args[0]) {
				t->turns[at]++;
				o->runs++;
				at = s->a;
				continue;
			}
			t->turns[at] = 0;
			break;
		case BARRIER:
			done = barrier(p);
			break;
		case STOP:
			stop(p, STOPPED);
			break;
		case COPY:
			raw_copy((void *)(uintptr_t)s->args[0], (const void *)(uintptr_t)s->args[1], s->args[2]);
			break;
		}
		o->runs += (uint64_t)done;
		at++;
	}
}

static void *thread_main(void *argument)
{
	struct thread *t = argument;
	struct program *p = t->program;
	char name[16];

	snprintf(name, sizeof(name), "program %u", t->index);
	prctl(PR_SET_NAME, name);
	barrier(p);
	self = t;
	run_steps(t);
	self = NULL;
	pthread_mutex_lock(&p->lock);
	p->active--;
	pass_if_all(p);
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static void wait_until(struct program *p, uint64_t when)
{
	struct timespec t = { .tv_sec = (time_t)(when / 1000000000u), .tv_nsec = (long)(when % 1000000000u) };

	pthread_cond_timedwait(&p->changed, &p->lock, &t);
}

static void wait_for_threads(struct program *p, uint64_t deadline)
{
	pthread_mutex_lock(&p->lock);
	while (p->active) {
		if (is_over(p)) {
			for (uint32_t i = 0; i < p->count; i++)
				pthread_kill(p->threads[i].thread, SIGUSR1);
			wait_until(p, now_ns() + NUDGE_NS);
		} else if (deadline == UINT64_MAX) {
			pthread_cond_wait(&p->changed, &p->lock);
		} else if (now_ns() < deadline) {
			wait_until(p, deadline);
		} else {
			pthread_mutex_unlock(&p->lock);
			stop(p, DEADLINE);
			pthread_mutex_lock(&p->lock);
		}
	}
	pthread_mutex_unlock(&p->lock);
	for (uint32_t i = 0; i < p->count; i++)
		pthread_join(p->threads[i].thread, NULL);
}

static const char *check_step(const struct step *s, uint32_t at)
{
	switch (s->op) {
	case CALL:
		return s->flags & ~(STOP_ON_FAILURE | KEEP_RESULT) ? "PROGRAM: a CALL has unknown flags" : NULL;
	case AWAIT:
		if (s->args[1] > 3)
			return "PROGRAM: an AWAIT has an unknown condition";
		/* fallthrough */
	case STORE:
	case ADD:
		return is_width(s->a) ? NULL : "PROGRAM: a step has no such width";
	case LOOP:
		return s->a <= at ? NULL : "PROGRAM: a LOOP leads forward";
	case BARRIER:
	case STOP:
	case COPY:
		return NULL;
	default:
		return "PROGRAM: there is no such step";
	}
}

static const char *parse_thread(struct program *p, struct thread *t, uint32_t *left, struct in *in)
{
	const void *steps;

	t->program = p;
	t->count = in_u32(in);
	t->cpu = in_u32(in);
	if (in->bad || t->count > *left)
		return "PROGRAM: its threads are cut short or have more than 16384 steps";
	*left -= t->count;
	steps = in_take(in, t->count * sizeof(*t->steps));
	if (in->bad)
		return "PROGRAM: its steps are cut short";
	t->steps = calloc(t->count + 1, sizeof(*t->steps));
	t->outcomes = calloc(t->count + 1, sizeof(*t->outcomes));
	t->turns = calloc(t->count + 1, sizeof(*t->turns));
	if (!t->steps || !t->outcomes || !t->turns)
		session_fail("out of memory");
	memcpy(t->steps, steps, t->count * sizeof(*t->steps));
	for (uint32_t i = 0; i < t->count; i++) {
		const char *malformed = check_step(&t->steps[i], i);

		if (malformed)
			return malformed;
	}
	return NULL;
}

static const char *parse(struct program *p, uint64_t *patience, struct in *in)
{
	uint32_t count, left = MAX_STEPS;

	*patience = in_u64(in);
	count = in_u32(in);
	if (in->bad || count > MAX_THREADS)
		return "PROGRAM: more than 64 threads";
	while (p->count < count) {
		struct thread *t = &p->threads[p->count];
		const char *malformed;

		t->index = p->count++;
		malformed = parse_thread(p, t, &left, in);
		if (malformed)
			return malformed;
	}
	return in->left ? "PROGRAM: something follows its end" : NULL;
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

/* What a thread may run on, before it exists: a processor that is not there must be refused, not ignored. */
static int start(struct thread *t)
{
	pthread_attr_t attributes;
	cpu_set_t cpus;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, PROGRAM_STACK);
	if (t->cpu != ANY_CPU) {
		CPU_ZERO(&cpus);
		if (t->cpu < CPU_SETSIZE)
			CPU_SET(t->cpu, &cpus);
		pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
	}
	error = pthread_create(&t->thread, &attributes, thread_main, t);
	pthread_attr_destroy(&attributes);
	return error;
}

static int run(struct program *p, uint64_t deadline, const struct wire_header *h, struct out *out)
{
	/* A thread that cannot be started must not be waited for at the first barrier. */
	p->active = p->count;
	for (uint32_t i = 0; i < p->count; i++) {
		int error = start(&p->threads[i]);

		if (!error)
			continue;
		out_refuse(out, h, -error, "thread %u of the program, on processor %d: %s", i, (int)p->threads[i].cpu, strerror(error));
		stop(p, STOPPED);
		pthread_mutex_lock(&p->lock);
		p->active -= p->count - i;
		pthread_mutex_unlock(&p->lock);
		p->count = i;
		wait_for_threads(p, UINT64_MAX);
		return -1;
	}
	wait_for_threads(p, deadline);
	return 0;
}

static void reply(const struct program *p, uint64_t took, const struct wire_header *h, struct out *out)
{
	out_reply(out, h);
	out_u32(out, (uint32_t)p->end);
	out_u64(out, took);
	for (uint32_t i = 0; i < p->count; i++) {
		const struct thread *t = &p->threads[i];

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
}

const char *program_request(const struct wire_header *h, struct in *in, struct out *out)
{
	struct program *p = calloc(1, sizeof(*p));
	pthread_condattr_t clock;
	const char *malformed;
	uint64_t patience, began;
	uint32_t count;

	if (!p)
		session_fail("out of memory");
	malformed = parse(p, &patience, in);
	if (malformed) {
		discard(p);
		return malformed;
	}
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&p->changed, &clock);
	count = p->count;
	began = now_ns();
	if (!run(p, patience ? later(began, patience) : UINT64_MAX, h, out))
		reply(p, now_ns() - began, h, out);
	p->count = count;
	discard(p);
	return NULL;
}
