/* A client that counts exactly: COUNT requests over CONCURRENCY connections at a time.
 *
 * hammer ADDRESS COUNT CONCURRENCY: ADDRESS is a port of 127.0.0.1, or the path of a UNIX socket.
 * A request has failed if connecting, sending or reading failed, or the answer is not a whole one
 * of status 200. Prints "OK FAILED SLOWEST_MS", and a line on stderr for each of the first failures.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char REQUEST[] = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
enum { MAX_CONCURRENCY = 256, TIMEOUT_MS = 20000, SHOWN_FAILURES = 10 };

struct connection {
    int fd;
    size_t length;
    double begun;
    char answer[512];
};

static union {
    struct sockaddr any;
    struct sockaddr_in inet;
    struct sockaddr_un local;
} address;
static socklen_t address_length;
static struct connection connections[MAX_CONCURRENCY];
static long to_begin, ok, failed;
static double slowest;
static int epoll;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static void fail(const char *what)
{
    if (failed++ < SHOWN_FAILURES)
        warn("%s", what);
}

/* Blocking connect and send: both need nobody's help but the kernel's, unless the queue is full. */
static int begin(struct connection *connection)
{
    while (to_begin > 0) {
        to_begin--;
        connection->begun = now();
        connection->length = 0;
        connection->fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connection->fd < 0)
            err(1, "socket");
        if (connect(connection->fd, &address.any, address_length))
            fail("connect");
        else if (send(connection->fd, REQUEST, sizeof REQUEST - 1, MSG_NOSIGNAL) < 0)
            fail("send");
        else {
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
            if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event))
                err(1, "epoll_ctl");
            return 1;
        }
        close(connection->fd);
    }
    return 0;
}

static void judge(struct connection *connection, ssize_t got)
{
    char *body, *length;
    connection->answer[connection->length] = '\0';
    errno = got < 0 ? errno : 0;
    if (got < 0)
        fail("read");
    else if (strncmp(connection->answer, "HTTP/1.1 200 ", 13) ||
             !(body = strstr(connection->answer, "\r\n\r\n")) ||
             !(length = strcasestr(connection->answer, "\r\nContent-Length:")) ||
             strlen(body + 4) != strtoul(length + 17, NULL, 10))
        fail(connection->length ? "not a whole answer" : "closed without an answer");
    else
        ok++;
    double took = now() - connection->begun;
    if (took > slowest)
        slowest = took;
    close(connection->fd);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        errx(2, "usage: hammer ADDRESS COUNT CONCURRENCY");
    if (strchr(argv[1], '/')) {
        address.local.sun_family = AF_UNIX;
        strncpy(address.local.sun_path, argv[1], sizeof address.local.sun_path - 1);
        address_length = sizeof address.local;
    } else {
        address.inet.sin_family = AF_INET;
        address.inet.sin_port = htons(atoi(argv[1]));
        address.inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address_length = sizeof address.inet;
    }
    to_begin = atol(argv[2]);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int open = 0;
    for (int i = 0; i < atoi(argv[3]) && i < MAX_CONCURRENCY; i++)
        open += begin(&connections[i]);
    while (open > 0) {
        struct epoll_event events[MAX_CONCURRENCY];
        int count = epoll_wait(epoll, events, MAX_CONCURRENCY, TIMEOUT_MS);
        if (count == 0)
            errx(1, "no answer for %d ms", TIMEOUT_MS);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            size_t room = sizeof connection->answer - 1 - connection->length;
            ssize_t got = read(connection->fd, connection->answer + connection->length, room);
            if (got > 0) {
                connection->length += got;
                continue;
            }
            judge(connection, got);
            open += begin(connection) - 1;
        }
    }
    printf("%ld %ld %.1f\n", ok, failed, slowest);
    return 0;
}
