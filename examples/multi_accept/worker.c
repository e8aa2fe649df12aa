/* A worker that shares its listening sockets with others: see README.md.
 *
 * Build: cc -O2 -Wall -Wextra -o worker worker.c
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_FD = 3, MAX_LISTENERS = 16, CLIENT_SECONDS = 5 };

/* sd_listen_fds(3): so many descriptors from 3 on, if they are meant for us. */
static int from_listen_fds(struct pollfd *fds)
{
    const char *pid = getenv("LISTEN_PID"), *text = getenv("LISTEN_FDS");
    if (!pid || !text || atoi(pid) != getpid())
        return 0;
    int count = 0;
    while (count < atoi(text) && count < MAX_LISTENERS) {
        fds[count].fd = FIRST_FD + count;
        count++;
    }
    return count;
}

/* Server::Starter: "127.0.0.1:8080=3;/tmp/app.sock=4", the number after the last '='. */
static int from_server_starter(struct pollfd *fds)
{
    const char *text = getenv("SERVER_STARTER_PORT");
    if (!text)
        return 0;
    char *copy = strdup(text), *rest = copy, *entry;
    int count = 0;
    while ((entry = strsep(&rest, ";")) && count < MAX_LISTENERS) {
        const char *number = strrchr(entry, '=');
        if (number)
            fds[count++].fd = atoi(number + 1);
    }
    free(copy);
    return count;
}

/* sd_notify(3); a manager that is gone must not stop the service. */
static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || !*path || strlen(path) >= sizeof address.sun_path)
        return;
    strcpy(address.sun_path, path);
    if (*path == '@') /* an abstract name */
        address.sun_path[0] = '\0';
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, length);
    close(fd);
}

/* One line in: the milliseconds of work wanted. One line out: our pid. */
static void serve(int client)
{
    struct timeval patience = {.tv_sec = CLIENT_SECONDS};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    char line[32] = "", answer[32], rest[256];
    size_t length = 0;
    while (length < sizeof line - 1 && !memchr(line, '\n', length)) {
        ssize_t got = read(client, line + length, sizeof line - 1 - length);
        if (got <= 0)
            return;
        length += got;
    }
    long milliseconds = strtol(line, NULL, 10);
    if (milliseconds > 0) {
        struct timespec work = {milliseconds / 1000, milliseconds % 1000 * 1000000};
        nanosleep(&work, NULL);
    }
    int size = snprintf(answer, sizeof answer, "%d\n", getpid());
    if (send(client, answer, size, MSG_NOSIGNAL) != size)
        return;
    /* Closing with bytes unread would send a reset, which can overtake the answer. */
    shutdown(client, SHUT_WR);
    while (read(client, rest, sizeof rest) > 0)
        ;
}

int main(void)
{
    /* Blocked, TERM interrupts nothing and waits in a descriptor until we look. */
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &stop, NULL);

    struct pollfd fds[1 + MAX_LISTENERS];
    fds[0].fd = signalfd(-1, &stop, SFD_CLOEXEC);
    int count = from_listen_fds(fds + 1);
    if (count == 0)
        count = from_server_starter(fds + 1);
    if (count == 0)
        errx(1, "no listening socket in LISTEN_FDS or SERVER_STARTER_PORT");
    for (int i = 0; i <= count; i++) {
        fds[i].events = POLLIN;
        /* Another worker may take the connection between our poll and our accept. */
        fcntl(fds[i].fd, F_SETFL, fcntl(fds[i].fd, F_GETFL) | O_NONBLOCK);
    }
    notify("READY=1");
    for (unsigned turn = 0;; turn++) {
        if (poll(fds, 1 + count, -1) < 0 && errno != EINTR)
            err(1, "poll");
        if (fds[0].revents)
            return 0; /* TERM, and nothing is in hand here */
        struct pollfd *listener = &fds[1 + turn % count];
        int client = listener->revents ? accept(listener->fd, NULL, NULL) : -1;
        if (client >= 0) {
            serve(client);
            close(client);
        }
    }
}
