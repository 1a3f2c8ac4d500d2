// SPDX-License-Identifier: MIT
/*
 * The supervisor: one stream to the harness, any number of sessions, nothing else. It never waits for a session: what one does not read is
 * kept for it, up to a limit, and how one ended is learnt from SIGCHLD.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init.h"
#include "wire.h"

#define MAX_SESSIONS	1024
#define MAX_QUEUE	(64u << 20)
#define READ_SIZE	(64u << 10)
/* How long an ordinary process waits for killed sessions before it exits. */
#define LAST_WAIT_MS	10000
/* Out of the way of the descriptors a test sees; a session raises its limit first. */
#define SESSION_FD	1000

#ifdef __aarch64__
#define ELF_MACHINE	183u
#else
#define ELF_MACHINE	62u
#endif

struct queue {
	uint8_t *data;
	size_t head;
	size_t size;
	size_t capacity;
};

struct session {
	uint32_t id;		/* 0: free */
	pid_t pid;
	int fd;			/* -1 once it has ended its stream */
	int dying;		/* killed, or about to be found dead */
	int forgotten;		/* nobody wants to know how it ended */
	int closing;		/* the reply to `close` is owed */
	struct wire_header close;
	uint32_t watched;	/* epoll events asked for */
	struct queue in;	/* from the session, until whole frames are there */
	struct queue out;	/* to the session */
	char reason[256];
};

/* What an epoll event is about: a session's slot, or one of these. */
enum { ON_INPUT = MAX_SESSIONS, ON_OUTPUT, ON_SIGNAL };

static struct session sessions[MAX_SESSIONS];
static uint32_t next_session = 1;
static int living;		/* sessions not yet reaped */
static int poller = -1, signals = -1;
static int input = -1, output = -1;
static uint32_t input_watched, output_watched;
static int connected;
static struct queue from_harness, to_harness;
static int skipping;		/* framing was lost: input is skipped until a HELLO */

static int queue_put(struct queue *q, const void *data, size_t size)
{
	if (q->head && q->head + q->size + size > q->capacity) {
		memmove(q->data, q->data + q->head, q->size);
		q->head = 0;
	}
	if (q->size + size > q->capacity) {
		size_t capacity = q->capacity ? q->capacity : READ_SIZE;
		void *grown;

		while (capacity < q->size + size)
			capacity *= 2;
		grown = realloc(q->data, capacity);
		if (!grown)
			return -1;
		q->data = grown;
		q->capacity = capacity;
	}
	memcpy(q->data + q->head + q->size, data, size);
	q->size += size;
	return 0;
}

static void queue_free(struct queue *q)
{
	free(q->data);
	memset(q, 0, sizeof(*q));
}

static void queue_drop(struct queue *q, size_t size)
{
	q->head += size;
	q->size -= size;
	if (q->size)
		return;
	q->head = 0;
	/* One big frame must not be kept in memory for good. */
	if (q->capacity > 4 * READ_SIZE)
		queue_free(q);
}

/* 0, or -1 when the other end is gone. */
static int queue_write(struct queue *q, int fd)
{
	while (q->size) {
		ssize_t n = write(fd, q->data + q->head, q->size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0)
			return -1;
		queue_drop(q, (size_t)n);
	}
	return 0;
}

static void watch(int fd, uint32_t tag, uint32_t events, uint32_t *watched)
{
	struct epoll_event e = { .events = events, .data.u32 = tag };

	if (events == *watched)
		return;
	if (epoll_ctl(poller, EPOLL_CTL_MOD, fd, &e))
		die("epoll: %s", strerror(errno));
	*watched = events;
}

static int send_frame(struct out *out)
{
	int error;

	out_end(out);
	error = queue_put(&to_harness, out->data, out->size);
	out_free(out);
	return error;
}

static struct session *find(uint32_t id)
{
	struct session *s = &sessions[id % MAX_SESSIONS];

	return id && s->id == id ? s : NULL;
}

/* What it started is in its process group and goes with it; the kernel has released everything once it is reaped. */
static void kill_session(struct session *s, const char *reason)
{
	if (!s->reason[0] && reason)
		snprintf(s->reason, sizeof(s->reason), "%s", reason);
	if (!s->dying)
		kill(-s->pid, SIGKILL);
	kill(s->pid, SIGKILL);
	s->dying = 1;
}

static void forget_sessions(void)
{
	for (int i = 0; i < MAX_SESSIONS; i++) {
		if (sessions[i].id) {
			sessions[i].forgotten = 1;
			kill_session(&sessions[i], NULL);
		}
	}
}

static void end_stream(struct session *s)
{
	if (s->fd >= 0) {
		/* A session just forked may hold the same socket for a moment, and closing alone would leave it watched. */
		epoll_ctl(poller, EPOLL_CTL_DEL, s->fd, NULL);
		close(s->fd);
	}
	s->fd = -1;
	queue_free(&s->out);
}

static void explain(char *text, size_t size, int status)
{
	if (WIFEXITED(status))
		snprintf(text, size, "exited with %d", WEXITSTATUS(status));
	else
		snprintf(text, size, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
}

/* A session's own ENDED is its last word and becomes the reason of its end. */
static void take_reason(struct session *s, const uint8_t *payload, size_t length)
{
	struct in in = { .at = payload, .left = length };
	const char *text;
	uint32_t size;

	in_u32(&in);
	size = in_u32(&in);
	if (size >= sizeof(s->reason))
		size = sizeof(s->reason) - 1;
	text = in_take(&in, size);
	if (!in.bad && !s->reason[0])
		snprintf(s->reason, sizeof(s->reason), "%.*s", (int)size, text);
}

/* Whole frames go on to the harness. */
static void take_session_frames(struct session *s)
{
	struct wire_header h;

	while (s->in.size >= sizeof(h)) {
		const uint8_t *frame = s->in.data + s->in.head;

		memcpy(&h, frame, sizeof(h));
		if (h.magic != WIRE_MAGIC || h.length > WIRE_MAX_PAYLOAD || h.session != s->id) {
			kill_session(s, "the session wrote something that is no frame");
			queue_free(&s->in);
			return;
		}
		if (s->in.size < sizeof(h) + h.length)
			return;
		if (h.kind == WIRE_ENDED)
			take_reason(s, frame + sizeof(h), h.length);
		else if (!s->forgotten && queue_put(&to_harness, frame, sizeof(h) + h.length))
			kill_session(s, "out of memory in the supervisor");
		queue_drop(&s->in, sizeof(h) + h.length);
	}
}

/* 1: something was read; 0: there is nothing now; -1: the stream has ended. */
static int read_session(struct session *s)
{
	static uint8_t buffer[READ_SIZE];
	ssize_t n = read(s->fd, buffer, sizeof(buffer));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	if (queue_put(&s->in, buffer, (size_t)n))
		kill_session(s, "out of memory in the supervisor");
	take_session_frames(s);
	return 1;
}

static void reaped(struct session *s, int status)
{
	struct out out = { 0 };

	/* What it said before it died comes before the news of its death. */
	while (s->fd >= 0 && read_session(s) > 0)
		;
	end_stream(s);
	if (s->closing) {
		out_reply(&out, &s->close);
		out_u32(&out, (uint32_t)status);
		send_frame(&out);
	} else if (!s->forgotten) {
		if (!s->reason[0])
			explain(s->reason, sizeof(s->reason), status);
		out_begin(&out, WIRE_ENDED, s->id, 0);
		out_u32(&out, (uint32_t)status);
		out_str(&out, s->reason);
		send_frame(&out);
	}
	queue_free(&s->in);
	memset(s, 0, sizeof(*s));
	living--;
}

static struct session *find_process(pid_t pid)
{
	for (int i = 0; i < MAX_SESSIONS; i++)
		if (sessions[i].id && sessions[i].pid == pid)
			return &sessions[i];
	return NULL;
}

/* As PID 1, and as a subreaper, orphans of sessions come here too. */
static void reap(void)
{
	siginfo_t dead = { 0 };

	while (!waitid(P_ALL, 0, &dead, WEXITED | WNOHANG | WNOWAIT) && dead.si_pid) {
		struct session *s = find_process(dead.si_pid);
		int status = 0;

		/* While it is not reaped its number is its own: what it has started is still its process group. */
		if (s)
			kill(-s->pid, SIGKILL);
		waitpid(dead.si_pid, &status, 0);
		if (s)
			reaped(s, status);
		dead.si_pid = 0;
	}
}

/* What cannot be passed on is not read either, so that nothing grows without a limit. */
static int full;

static void watch_session(struct session *s)
{
	if (s->id && s->fd >= 0)
		watch(s->fd, s->id % MAX_SESSIONS, (full ? 0 : EPOLLIN) | (s->out.size ? EPOLLOUT : 0), &s->watched);
}

static void run_session(int fd, uint32_t id) __attribute__((noreturn));

static void run_session(int fd, uint32_t id)
{
	struct rlimit files = { 1 << 20, 1 << 20 };
	sigset_t none;

	setsid();
	/* Raising the hard limit is root's; everybody else gets what there is. */
	if (setrlimit(RLIMIT_NOFILE, &files) && !getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	/* Nothing of the supervisor or of another session may be kept open by this one. */
	if (dup2(fd, 3) < 0)
		_exit(72);
	if (syscall(SYS_close_range, 4u, ~0u, 0u))
		for (int i = 4; i < 4096; i++)
			close(i);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || fcntl(3, F_DUPFD_CLOEXEC, SESSION_FD) != SESSION_FD)
		_exit(72);
	close(3);
	session_main(SESSION_FD, id);
}

static void open_session(const struct wire_header *h, struct out *out)
{
	struct epoll_event e = { .events = EPOLLIN };
	struct session *s;
	pid_t self = getpid(), pid;
	int pair[2];

	if (living == MAX_SESSIONS) {
		out_refuse(out, h, -ENOSPC, "%d sessions are the limit", MAX_SESSIONS);
		return;
	}
	while (!next_session || sessions[next_session % MAX_SESSIONS].id)
		next_session++;
	s = &sessions[next_session % MAX_SESSIONS];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		out_refuse(out, h, -errno, "no socket pair: %s", strerror(errno));
		return;
	}
	pid = fork();
	if (pid < 0) {
		out_refuse(out, h, -errno, "fork: %s", strerror(errno));
		close(pair[0]);
		close(pair[1]);
		return;
	}
	if (!pid) {
		if (getppid() != self)
			_exit(72);
		run_session(pair[1], next_session);
	}
	close(pair[1]);
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	memset(s, 0, sizeof(*s));
	s->id = next_session++;
	s->pid = pid;
	s->fd = pair[0];
	s->watched = e.events;
	e.data.u32 = s->id % MAX_SESSIONS;
	if (epoll_ctl(poller, EPOLL_CTL_ADD, s->fd, &e))
		die("epoll: %s", strerror(errno));
	living++;
	out_reply(out, h);
	out_u32(out, s->id);
	out_u32(out, (uint32_t)pid);
}

static void hello(const struct wire_header *h, struct out *out)
{
	struct utsname name;

	uname(&name);
	out_reply(out, h);
	out_u32(out, WIRE_VERSION);
	out_u32(out, ELF_MACHINE);
	out_u32(out, (uint32_t)sysconf(_SC_PAGESIZE));
	out_u32(out, (uint32_t)sysconf(_SC_NPROCESSORS_ONLN));
	out_u32(out, (uint32_t)getpid());
	out_str(out, name.release);
}

/* Replies when the session has been reaped. */
static void close_session(const struct wire_header *h, struct in *in, struct out *out)
{
	struct session *s = find(in_u32(in));

	if (in->bad || !s || s->closing) {
		out_refuse(out, h, in->bad ? -EINVAL : -ENOENT, in->bad ? "CLOSE names no session" : "there is no such session");
		return;
	}
	s->closing = 1;
	s->close = *h;
	kill_session(s, NULL);
}

static void supervise(const struct wire_header *h, const uint8_t *payload)
{
	struct in in = { .at = payload, .left = h->length };
	struct out out = { 0 };

	switch (h->kind) {
	case WIRE_HELLO:
		in_u32(&in);
		if (in.bad) {
			out_refuse(&out, h, -EINVAL, "HELLO names no version");
			break;
		}
		/* A harness that says HELLO knows of no session: those there are belong to one that is gone. */
		forget_sessions();
		hello(h, &out);
		break;
	case WIRE_OPEN:
		open_session(h, &out);
		break;
	case WIRE_CLOSE:
		close_session(h, &in, &out);
		break;
	default:
		out_refuse(&out, h, -ENOSYS, "the supervisor has no request 0x%04x", h->kind);
		break;
	}
	if (out.size)
		send_frame(&out);
}

static void forward(const struct wire_header *h, const uint8_t *frame, size_t size)
{
	struct session *s = find(h->session);
	struct out out = { 0 };

	if (!s || s->dying || s->fd < 0) {
		out_refuse(&out, h, -ENOENT, "there is no such session");
		send_frame(&out);
		return;
	}
	if (s->out.size + size > MAX_QUEUE || queue_put(&s->out, frame, size)) {
		kill_session(s, "the session did not read its requests");
		return;
	}
	/* An error shows as the end of its stream, after what it has still said. */
	queue_write(&s->out, s->fd);
	watch_session(s);
}

static void lose_framing(const char *why)
{
	struct out out = { 0 };

	forget_sessions();
	out_begin(&out, WIRE_LOST, 0, 0);
	out_str(&out, why);
	send_frame(&out);
	skipping = 1;
}

static int plausible(const struct wire_header *h)
{
	return h->magic == WIRE_MAGIC && h->length <= WIRE_MAX_PAYLOAD && !(h->kind & 0xc000);
}

/* After a loss only a HELLO is believed: anything else might be the middle of something. */
static int skip_to_hello(void)
{
	struct wire_header h;

	while (from_harness.size >= sizeof(h)) {
		memcpy(&h, from_harness.data + from_harness.head, sizeof(h));
		if (plausible(&h) && h.kind == WIRE_HELLO && !h.session && h.length >= 4 && h.length <= 64) {
			skipping = 0;
			return 1;
		}
		queue_drop(&from_harness, 1);
	}
	return 0;
}

static void take_input(void)
{
	struct wire_header h;

	while (from_harness.size >= sizeof(h)) {
		const uint8_t *frame;

		if (skipping && !skip_to_hello())
			return;
		frame = from_harness.data + from_harness.head;
		memcpy(&h, frame, sizeof(h));
		if (!plausible(&h)) {
			lose_framing(h.magic != WIRE_MAGIC ? "a frame does not begin with CFM1" :
				     h.length > WIRE_MAX_PAYLOAD ? "a payload is longer than 16 MiB" : "a frame is no request");
			continue;
		}
		if (from_harness.size < sizeof(h) + h.length)
			return;
		if (h.session)
			forward(&h, frame, sizeof(h) + h.length);
		else
			supervise(&h, frame + sizeof(h));
		queue_drop(&from_harness, sizeof(h) + h.length);
	}
}

/* 0, or -1 when the harness is gone. */
static int read_harness(void)
{
	static uint8_t buffer[READ_SIZE];
	ssize_t n = read(input, buffer, sizeof(buffer));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	if (queue_put(&from_harness, buffer, (size_t)n)) {
		queue_free(&from_harness);
		lose_framing("out of memory in the supervisor");
		return 0;
	}
	take_input();
	return 0;
}

static void set_watches(void)
{
	int was_full = full;

	full = to_harness.size > MAX_QUEUE;
	if (connected) {
		uint32_t in = full ? 0 : EPOLLIN, out = to_harness.size ? EPOLLOUT : 0;

		if (input == output) {
			watch(input, ON_INPUT, in | out, &input_watched);
		} else {
			watch(input, ON_INPUT, in, &input_watched);
			watch(output, ON_OUTPUT, out, &output_watched);
		}
	}
	for (int i = 0; full != was_full && i < MAX_SESSIONS; i++)
		watch_session(&sessions[i]);
}

static void on_session(struct session *s, uint32_t events)
{
	if (!s->id || s->fd < 0)
		return;
	if ((events & EPOLLOUT) && queue_write(&s->out, s->fd))
		queue_free(&s->out);
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && read_session(s) < 0) {
		/* It is dead, which SIGCHLD will say more of, or it has closed its end: then it is of no use. */
		end_stream(s);
		kill_session(s, NULL);
	}
	watch_session(s);
}

static void disconnect(void)
{
	forget_sessions();
	queue_free(&to_harness);
	connected = 0;
	/* The rest of a frame that nobody will finish may still be there; the next harness begins with HELLO. */
	skipping = 1;
}

static void on_signal(void)
{
	struct signalfd_siginfo info[8];

	if (read(signals, info, sizeof(info)) < 0 && errno != EAGAIN && errno != EINTR)
		die("signalfd: %s", strerror(errno));
	reap();
}

/*
 * One turn. A port whose other side nobody has opened reports EPOLLHUP for as long as that lasts, so it is then watched by edges: the
 * driver wakes its pollers when the host opens or closes it.
 */
static void turn(int timeout)
{
	struct epoll_event events[32];
	int n = epoll_wait(poller, events, 32, timeout);

	if (n < 0 && errno != EINTR)
		die("epoll_wait: %s", strerror(errno));
	for (int i = 0; i < n; i++) {
		uint32_t tag = events[i].data.u32, what = events[i].events;

		if (tag == ON_SIGNAL) {
			on_signal();
		} else if (tag < MAX_SESSIONS) {
			on_session(&sessions[tag], what);
		} else if (!connected) {
			connected = !(what & (EPOLLHUP | EPOLLERR));
		} else if (tag == ON_OUTPUT && (what & EPOLLERR)) {
			disconnect();
		} else if (tag == ON_INPUT && (what & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
			/* A pipe's or socket's last bytes come together with its hang-up; those of a port are worth nothing then. */
			if (((what & EPOLLHUP) && is_init()) || read_harness())
				disconnect();
		}
	}
	if (connected && queue_write(&to_harness, output))
		disconnect();
}

static void serve_until_hangup(void)
{
	connected = 1;
	input_watched = output_watched = UINT32_MAX;
	while (connected) {
		set_watches();
		turn(-1);
	}
}

static void wait_for_harness(void)
{
	input_watched = UINT32_MAX;
	watch(input, ON_INPUT, EPOLLIN | EPOLLOUT | EPOLLET, &input_watched);
	while (!connected) {
		set_watches();
		turn(-1);
	}
}

static void open_poller(void)
{
	struct epoll_event e = { .events = EPOLLIN, .data.u32 = ON_SIGNAL };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	poller = epoll_create1(EPOLL_CLOEXEC);
	if (signals < 0 || poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, signals, &e))
		die("epoll or signalfd: %s", strerror(errno));
}

static void add_stream(int fd, uint32_t tag)
{
	struct epoll_event e = { .data.u32 = tag };

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e))
		die("the stream is neither a pipe nor a socket: %s", strerror(errno));
}

static void serve_port(void) __attribute__((noreturn));

static void serve_port(void)
{
	init_machine();
	input = output = init_open_port();
	add_stream(input, ON_INPUT);
	init_say("agent ready");
	for (;;) {
		wait_for_harness();
		serve_until_hangup();
	}
}

static int serve_stream(int in, int out)
{
	input = in;
	output = out;
	/* Orphans of a session come here, or they would outlive us. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	add_stream(input, ON_INPUT);
	if (output != input)
		add_stream(output, ON_OUTPUT);
	serve_until_hangup();
	epoll_ctl(poller, EPOLL_CTL_DEL, input, NULL);
	if (output != input)
		epoll_ctl(poller, EPOLL_CTL_DEL, output, NULL);
	for (uint64_t end = now_ns() + LAST_WAIT_MS * 1000000ull; living && now_ns() < end;)
		turn(LAST_WAIT_MS);
	return living ? 71 : 0;
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		die("the path of a socket is at most %zu bytes long", sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
		die("%s: %s", path, strerror(errno));
	return fd;
}

/* A session must find nothing of the stream at 0 and 1. */
static int serve_stdio(void)
{
	int in = fcntl(0, F_DUPFD_CLOEXEC, 10), out = fcntl(1, F_DUPFD_CLOEXEC, 10), null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (in < 0 || out < 0 || null < 0)
		die("standard input and output: %s", strerror(errno));
	dup2(null, 0);
	dup2(null, 1);
	return serve_stream(in, out);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	open_poller();
	if (is_init())
		serve_port();
	if (argc == 2 && !strcmp(argv[1], "--stdio"))
		return serve_stdio();
	if (argc == 3 && !strcmp(argv[1], "--connect")) {
		int fd = connect_to(argv[2]);

		return serve_stream(fd, fd);
	}
	fprintf(stderr, "usage: agent --stdio | agent --connect SOCKET\n");
	return 64;
}
