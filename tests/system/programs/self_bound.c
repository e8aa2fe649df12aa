/* An HTTP server that binds a port of all IPv4 addresses by itself, with SO_REUSEPORT, and knows
 * nothing else of sengu: it answers with "GENERATION SLOT", one connection at a time. On TERM it
 * ends at once: whoever still waits in its queue is lost.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 128, MAX_BYTES = 4096 };

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes) != 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, BACKLOG) != 0)
        err(1, "port %d", port);
    return fd;
}

static void answer(int listener, const char *who)
{
    char request[MAX_BYTES], response[MAX_BYTES];
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        err(1, "accept");
    if (read(fd, request, sizeof request) > 0) {
        int length = snprintf(response, sizeof response,
                              "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
                              strlen(who), who);
        if (write(fd, response, length) != length)
            warn("write");
    }
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        errx(2, "usage: self_bound PORT");
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct pollfd ready[] = {{.fd = signalfd(-1, &set, SFD_CLOEXEC), .events = POLLIN},
                             {.fd = listen_on(atoi(argv[1])), .events = POLLIN}};
    char who[64];
    snprintf(who, sizeof who, "%s %s", getenv("SENGU_GENERATION"), getenv("SENGU_SLOT"));
    puts("up");
    fflush(stdout);
    for (;;) {
        if (poll(ready, 2, -1) < 0)
            err(1, "poll");
        if (ready[0].revents)
            return 0;
        if (ready[1].revents)
            answer(ready[1].fd, who);
    }
}
