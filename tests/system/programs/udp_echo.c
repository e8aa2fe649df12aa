/* A UDP server that knows nothing of sengu but its socket, descriptor 3, and READY=1: it answers
 * each datagram with "GENERATION SLOT PID " and the datagram. On TERM it ends at once: whatever
 * still waits in its queue is lost, unless another has the same socket.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { LISTENER = 3, MAX_BYTES = 1024 };

static void say_ready(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || *path != '@' || strlen(path) >= sizeof address.sun_path)
        errx(1, "no NOTIFY_SOCKET");
    strcpy(address.sun_path, path);
    address.sun_path[0] = '\0';
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&address, length) != 7)
        err(1, "READY=1");
    close(fd);
}

static void answer(const char *who)
{
    char text[2 * MAX_BYTES];
    struct sockaddr_storage client;
    socklen_t length = sizeof client;
    size_t start = strlen(strcpy(text, who));
    ssize_t size = recvfrom(LISTENER, text + start, MAX_BYTES, MSG_DONTWAIT,
                            (struct sockaddr *)&client, &length);
    if (size >= 0)
        sendto(LISTENER, text, start + size, 0, (struct sockaddr *)&client, length);
    else if (errno != EAGAIN) /* another had it */
        err(1, "recvfrom");
}

int main(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct pollfd ready[] = {{.fd = signalfd(-1, &set, SFD_CLOEXEC), .events = POLLIN},
                             {.fd = LISTENER, .events = POLLIN}};
    char who[64];
    snprintf(who, sizeof who, "%s %s %d ", getenv("SENGU_GENERATION"), getenv("SENGU_SLOT"),
             getpid());
    say_ready();
    for (;;) {
        if (poll(ready, 2, -1) < 0)
            err(1, "poll");
        if (ready[0].revents)
            return 0;
        answer(who);
    }
}
