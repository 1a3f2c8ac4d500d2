// SPDX-License-Identifier: MIT
/*
 * The supervisor: one stream to the harness, any number of sessions, nothing else. As PID 1 it first makes an initramfs usable and finds
 * its virtio-serial port; as an ordinary process it serves the descriptor it was started with.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

#define MAX_SESSIONS	256
#define MAX_QUEUE	(64u << 20)
#define PORT_NAME	"agent.0"

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
	int fd;
	struct queue in;	/* from the session, until whole frames are there */
	struct queue out;	/* to the session */
	char reason[160];
};

static struct session sessions[MAX_SESSIONS];
static uint32_t next_session = 1;
static int stream = -1;
static struct queue from_harness, to_harness;
static int skipping;		/* framing was lost: input is skipped until a HELLO */

static void queue_put(struct queue *q, const void *data, size_t size)
{
	if (q->head && q->head + q->size + size > q->capacity) {
		memmove(q->data, q->data + q->head, q->size);
		q->head = 0;
	}
	if (q->head + q->size + size > q->capacity) {
		size_t capacity = q->capacity ? q->capacity : 65536;

		while (capacity < q->head + q->size + size)
			capacity *= 2;
		q->data = realloc(q->data, capacity);
		if (!q->data)
			die("out of memory");
		q->capacity = capacity;
	}
	memcpy(q->data + q->head + q->size, data, size);
	q->size += size;
}

static void queue_drop(struct queue *q, size_t size)
{
	q->head += size;
	q->size -= size;
	if (!q->size)
		q->head = 0;
}

static void queue_free(struct queue *q)
{
	free(q->data);
	memset(q, 0, sizeof(*q));
}

static void send_frame(struct out *out)
{
	out_end(out);
	queue_put(&to_harness, out->data, out->size);
}

static struct session *find(uint32_t id)
{
	for (int i = 0; id && i < MAX_SESSIONS; i++)
		if (sessions[i].id == id)
			return &sessions[i];
	return NULL;
}

static int end_session(struct session *s)
{
	int status = 0;

	kill(s->pid, SIGKILL);
	while (waitpid(s->pid, &status, 0) < 0 && errno == EINTR)
		;
	close(s->fd);
	queue_free(&s->in);
	queue_free(&s->out);
	s->id = 0;
	return status;
}

static void end_all(void)
{
	for (int i = 0; i < MAX_SESSIONS; i++)
		if (sessions[i].id)
			end_session(&sessions[i]);
}

static void notice_ended(struct session *s, const char *reason)
{
	struct out out = { 0 };
	uint32_t id = s->id;
	char why[200];
	int status;

	snprintf(why, sizeof(why), "%s", s->reason[0] ? s->reason : reason);
	status = end_session(s);
	out_begin(&out, WIRE_ENDED, id, 0);
	out_u32(&out, (uint32_t)status);
	out_str(&out, why);
	send_frame(&out);
	out_free(&out);
}

static void open_session(const struct wire_header *h, struct out *out)
{
	struct session *s = NULL;
	int pair[2];
	pid_t pid;

	for (int i = 0; i < MAX_SESSIONS && !s; i++)
		if (!sessions[i].id)
			s = &sessions[i];
	if (!s) {
		out_refuse(out, h, -ENOSPC, "too many sessions");
		return;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		out_refuse(out, h, -errno, "no socket pair");
		return;
	}
	pid = fork();
	if (pid < 0) {
		out_refuse(out, h, -errno, "fork failed");
		close(pair[0]);
		close(pair[1]);
		return;
	}
	if (!pid) {
		/* Nothing of the supervisor or of another session may be kept open by this one. */
		int low = dup2(pair[1], 3);

		syscall(SYS_close_range, 4u, ~0u, 0u);
		if (low != 3)
			_exit(72);
		fcntl(3, F_SETFD, FD_CLOEXEC);
		setsid();
		session_main(3, next_session);
	}
	close(pair[1]);
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	memset(s, 0, sizeof(*s));
	s->id = next_session++;
	s->pid = pid;
	s->fd = pair[0];
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

static void supervise(const struct wire_header *h, const uint8_t *payload)
{
	struct in in = { .at = payload, .left = h->length };
	struct out out = { 0 };
	struct session *s;
	uint32_t id;

	switch (h->kind) {
	case WIRE_HELLO:
		in_u32(&in);
		if (in.bad)
			out_refuse(&out, h, -EINVAL, "HELLO without a version");
		else
			hello(h, &out);
		break;
	case WIRE_OPEN:
		open_session(h, &out);
		break;
	case WIRE_CLOSE:
		id = in_u32(&in);
		s = in.bad ? NULL : find(id);
		if (!s) {
			out_refuse(&out, h, -ENOENT, "no such session");
		} else {
			int status = end_session(s);

			out_reply(&out, h);
			out_u32(&out, (uint32_t)status);
		}
		break;
	default:
		out_refuse(&out, h, -EINVAL, "no such request of the supervisor");
		break;
	}
	send_frame(&out);
	out_free(&out);
}

static void flush_session(struct session *s)
{
	while (s->out.size) {
		ssize_t n = write(s->fd, s->out.data + s->out.head, s->out.size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		queue_drop(&s->out, (size_t)n);
	}
}

static void forward(const struct wire_header *h, const uint8_t *frame, size_t size)
{
	struct session *s = find(h->session);
	struct out out = { 0 };

	if (!s) {
		out_refuse(&out, h, -ENOENT, "no such session");
		send_frame(&out);
		out_free(&out);
		return;
	}
	if (s->out.size + size > MAX_QUEUE) {
		notice_ended(s, "the session does not read its requests");
		return;
	}
	queue_put(&s->out, frame, size);
	flush_session(s);
}

static void lose_framing(const char *why)
{
	struct out out = { 0 };

	end_all();
	out_begin(&out, WIRE_LOST, 0, 0);
	out_str(&out, why);
	send_frame(&out);
	out_free(&out);
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
		if (plausible(&h) && h.kind == WIRE_HELLO && h.session == 0 && h.length == 4) {
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
		if (skipping && !skip_to_hello())
			return;
		memcpy(&h, from_harness.data + from_harness.head, sizeof(h));
		if (!plausible(&h)) {
			lose_framing(h.magic == WIRE_MAGIC ? "impossible length or kind" : "no frame header");
			continue;
		}
		if (from_harness.size < sizeof(h) + h.length)
			return;
		if (h.session)
			forward(&h, from_harness.data + from_harness.head, sizeof(h) + h.length);
		else
			supervise(&h, from_harness.data + from_harness.head + sizeof(h));
		queue_drop(&from_harness, sizeof(h) + h.length);
	}
}

/* Whole frames go on to the harness. A session's own ENDED is its last word and becomes the reason of its end. */
static void take_session_output(struct session *s)
{
	struct wire_header h;

	while (s->in.size >= sizeof(h)) {
		memcpy(&h, s->in.data + s->in.head, sizeof(h));
		if (h.magic != WIRE_MAGIC || h.length > WIRE_MAX_PAYLOAD || h.session != s->id) {
			notice_ended(s, "the session wrote no frame");
			return;
		}
		if (s->in.size < sizeof(h) + h.length)
			return;
		if (h.kind == WIRE_ENDED) {
			struct in in = { .at = s->in.data + s->in.head + sizeof(h), .left = h.length };
			uint32_t size;

			in_u32(&in);
			size = in_u32(&in);
			if (size < sizeof(s->reason))
				memcpy(s->reason, in_take(&in, size), in.bad ? 0 : size);
		} else {
			queue_put(&to_harness, s->in.data + s->in.head, sizeof(h) + h.length);
		}
		queue_drop(&s->in, sizeof(h) + h.length);
	}
}

static void read_session(struct session *s)
{
	static uint8_t buffer[65536];
	ssize_t n = read(s->fd, buffer, sizeof(buffer));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		notice_ended(s, "");
		return;
	}
	queue_put(&s->in, buffer, (size_t)n);
	take_session_output(s);
}

static void reap_orphans(void)
{
	siginfo_t info;

	/* As PID 1 orphans of sessions come here; sessions themselves are reaped where they are ended. */
	for (;;) {
		int mine = 0;

		info.si_pid = 0;
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) || !info.si_pid)
			return;
		for (int i = 0; i < MAX_SESSIONS; i++)
			mine |= sessions[i].id && sessions[i].pid == info.si_pid;
		if (mine)
			return;
		waitpid(info.si_pid, NULL, WNOHANG);
	}
}

/* 0: the harness went away. */
static int serve_once(void)
{
	static uint8_t buffer[65536];
	struct pollfd fds[MAX_SESSIONS + 1];
	struct session *who[MAX_SESSIONS + 1];
	nfds_t count = 1;

	fds[0] = (struct pollfd){ .fd = stream, .events = (short)(POLLIN | (to_harness.size ? POLLOUT : 0)) };
	for (int i = 0; i < MAX_SESSIONS; i++) {
		if (!sessions[i].id)
			continue;
		who[count] = &sessions[i];
		fds[count++] = (struct pollfd){
			.fd = sessions[i].fd,
			.events = (short)((to_harness.size < MAX_QUEUE ? POLLIN : 0) | (sessions[i].out.size ? POLLOUT : 0)),
		};
	}
	if (poll(fds, count, -1) < 0)
		return errno == EINTR;
	if (fds[0].revents & (POLLIN | POLLHUP | POLLERR)) {
		ssize_t n = read(stream, buffer, sizeof(buffer));

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return 0;
		if (n > 0) {
			queue_put(&from_harness, buffer, (size_t)n);
			take_input();
		}
	}
	for (nfds_t i = 1; i < count; i++) {
		struct session *s = who[i];

		if (!s->id || s->fd != fds[i].fd)
			continue;
		if (fds[i].revents & POLLOUT)
			flush_session(s);
		if (fds[i].revents & (POLLIN | POLLHUP | POLLERR))
			read_session(s);
	}
	while (to_harness.size) {
		ssize_t n = write(stream, to_harness.data + to_harness.head, to_harness.size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0)
			return 0;
		queue_drop(&to_harness, (size_t)n);
	}
	if (getpid() == 1)
		reap_orphans();
	return 1;
}

static void serve(void)
{
	fcntl(stream, F_SETFL, fcntl(stream, F_GETFL) | O_NONBLOCK);
	while (serve_once())
		;
	end_all();
	from_harness.head = from_harness.size = 0;
	to_harness.head = to_harness.size = 0;
	skipping = 0;
}

static void say(const char *text)
{
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		dprintf(fd, "conformance: %s\n", text);
		close(fd);
	}
}

static void mount_all(void)
{
	static const char *const wanted[][3] = {
		{ "proc", "/proc", "proc" },
		{ "sysfs", "/sys", "sysfs" },
		{ "devtmpfs", "/dev", "devtmpfs" },
		{ "tmpfs", "/tmp", "tmpfs" },
		{ "debugfs", "/sys/kernel/debug", "debugfs" },
		{ "tracefs", "/sys/kernel/tracing", "tracefs" },
	};

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		mkdir(wanted[i][1], 0755);
		/* What this kernel does not have is missed by whoever needs it. */
		mount(wanted[i][0], wanted[i][1], wanted[i][2], 0, NULL);
	}
}

static void load_boot_modules(void)
{
	FILE *list = fopen("/modules/boot.list", "re");
	char path[512], text[640];

	while (list && fgets(path, sizeof(path), list)) {
		int fd;

		path[strcspn(path, "\n")] = 0;
		if (!path[0])
			continue;
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)) {
			snprintf(text, sizeof(text), "%s: %s", path, strerror(errno));
			say(text);
		}
		if (fd >= 0)
			close(fd);
	}
	if (list)
		fclose(list);
}

static int open_port(void)
{
	DIR *ports = opendir("/sys/class/virtio-ports");
	struct dirent *entry;
	int fd = -1;

	while (ports && fd < 0 && (entry = readdir(ports))) {
		char path[600], name[64] = "";
		FILE *file;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
		file = fopen(path, "re");
		if (!file)
			continue;
		if (!fgets(name, sizeof(name), file))
			name[0] = 0;
		fclose(file);
		name[strcspn(name, "\n")] = 0;
		if (strcmp(name, PORT_NAME))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	}
	if (ports)
		closedir(ports);
	return fd;
}

static void pause_ms(long ms)
{
	struct timespec t = { .tv_nsec = ms * 1000000 };

	nanosleep(&t, NULL);
}

/* The port has no event for "somebody connected": while nobody has, poll reports a hang-up at once. */
static void wait_for_harness(void)
{
	struct pollfd p = { .fd = stream, .events = POLLIN };

	while (poll(&p, 1, -1) < 0 || ((p.revents & POLLHUP) && !(p.revents & POLLIN)))
		pause_ms(1);
}

static void init_main(void) __attribute__((noreturn));

static void init_main(void)
{
	mount_all();
	load_boot_modules();
	/* The control queue of virtio-serial names its ports a little after the driver is there. */
	while ((stream = open_port()) < 0)
		pause_ms(1);
	say("agent ready");
	for (;;) {
		wait_for_harness();
		serve();
	}
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (getpid() == 1)
		init_main();
	if (argc == 2 && !strcmp(argv[1], "--stdio")) {
		/* A session must find nothing of the stream at 0 and 1. */
		int in = fcntl(0, F_DUPFD_CLOEXEC, 10), pair[2];

		if (in < 0)
			die("standard input is not open");
		stream = in;
		/* A socket serves both ways; a pair of pipes, as ssh gives, is joined by a small process of our own. */
		struct stat s;

		if (!fstat(0, &s) && !S_ISSOCK(s.st_mode)) {
			int from = in, to = fcntl(1, F_DUPFD_CLOEXEC, 10);

			if (to < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
				die("no socket pair: %s", strerror(errno));
			for (int way = 0; way < 2; way++) {
				if (fork() == 0) {
					static uint8_t buffer[65536];
					int source = way ? pair[1] : from, sink = way ? to : pair[1];
					ssize_t n;

					prctl(PR_SET_PDEATHSIG, SIGKILL);
					close(pair[0]);
					while ((n = read(source, buffer, sizeof(buffer))) > 0)
						if (write_all(sink, buffer, (size_t)n))
							break;
					shutdown(pair[1], SHUT_RDWR);
					_exit(0);
				}
			}
			close(pair[1]);
			close(from);
			close(to);
			stream = pair[0];
		}
		int null = open("/dev/null", O_RDWR);

		dup2(null, 0);
		dup2(null, 1);
		close(null);
	} else if (argc == 3 && !strcmp(argv[1], "--connect")) {
		struct sockaddr_un address = { .sun_family = AF_UNIX };

		if (strlen(argv[2]) >= sizeof(address.sun_path))
			die("%s is too long for a socket", argv[2]);
		strcpy(address.sun_path, argv[2]);
		stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (stream < 0 || connect(stream, (struct sockaddr *)&address, sizeof(address)))
			die("%s: %s", argv[2], strerror(errno));
	} else {
		die("usage: agent --stdio | agent --connect SOCKET");
	}
	serve();
	return 0;
}
