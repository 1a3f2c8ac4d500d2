// SPDX-License-Identifier: MIT
/*
 * tether COMMAND ARGUMENTS…: runs a command that must not outlive whoever started it. Standard input is the tether: at its end, which comes
 * however the starter dies, the command and its process group are killed. Its exit status is passed on; a signal becomes 128 + its number.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>

int main(int argc, char **argv)
{
	sigset_t child_ended;
	struct pollfd fds[2];
	int status, signals;
	pid_t self = getpid(), child;

	if (argc < 2) {
		fprintf(stderr, "usage: tether COMMAND [ARGUMENT]...\n");
		return 64;
	}
	/*
	 * The terminal's interrupt is for the one who holds the tether: the child gets a session of its own below, or Ctrl-C would
	 * kill a QEMU before anyone has decided that the run is over.
	 */
	signal(SIGINT, SIG_IGN);
	sigemptyset(&child_ended);
	sigaddset(&child_ended, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child_ended, NULL);
	signals = signalfd(-1, &child_ended, SFD_CLOEXEC);
	child = fork();
	if (child < 0) {
		fprintf(stderr, "tether: fork: %s\n", strerror(errno));
		return 71;
	}
	if (!child) {
		int null = open("/dev/null", O_RDONLY);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != self)
			_exit(70);
		setsid();
		dup2(null, 0);
		close(null);
		sigprocmask(SIG_UNBLOCK, &child_ended, NULL);
		signal(SIGINT, SIG_DFL);
		execvp(argv[1], argv + 1);
		fprintf(stderr, "tether: %s: %s\n", argv[1], strerror(errno));
		_exit(errno == ENOENT ? 127 : 126);
	}
	fds[0] = (struct pollfd){ .fd = 0, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = signals, .events = POLLIN };
	for (;;) {
		char byte[64];

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		if (waitpid(child, &status, WNOHANG) == child)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		if (fds[0].revents) {
			ssize_t n = read(0, byte, sizeof(byte));

			/* An input that somebody made non-blocking has not ended for that. */
			if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
				break;
		}
		if (fds[1].revents & POLLIN) {
			struct signalfd_siginfo info;

			if (read(signals, &info, sizeof(info)) < 0)
				break;
		}
	}
	/* The child leads a session: what it left in its group goes with it, helpers of a browser for one. */
	kill(-child, SIGKILL);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	return 137;
}
