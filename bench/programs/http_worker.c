/* A fast HTTP/1.0 server: a fixed answer, one connection per request.
 *
 * Its socket comes as sd_listen_fds(3) describes or in SERVER_STARTER_PORT; with a port as argument
 * it binds that of 127.0.0.1 itself, with SO_REUSEPORT. TERM ends it when the request in hand is
 * answered; what waits in the queue is left to whoever shares the socket.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                             "Content-Length: 6\r\nConnection: close\r\n\r\nhello\n";

static int find_listener(void)
{
    const char *pid = getenv("LISTEN_PID"), *port = getenv("SERVER_STARTER_PORT");
    if (pid && atoi(pid) == getpid())
        return 3;
    const char *number = port ? strrchr(port, '=') : NULL;
    if (!number)
        errx(1, "no listening socket in LISTEN_FDS or SERVER_STARTER_PORT");
    return atoi(number + 1);
}

static int bind_listener(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(atoi(port)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) ||
        bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, SOMAXCONN))
        err(1, "cannot listen on 127.0.0.1:%s", port);
    return fd;
}

static void notify(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || !*path || strlen(path) >= sizeof address.sun_path)
        return;
    strcpy(address.sun_path, path);
    if (*path == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&address,
           offsetof(struct sockaddr_un, sun_path) + strlen(path));
    close(fd);
}

static void serve(int client)
{
    struct timeval patience = {.tv_sec = 5};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    char head[4096];
    size_t length = 0;
    while (!memmem(head, length, "\r\n\r\n", 4)) {
        ssize_t got = read(client, head + length, sizeof head - length);
        if (got <= 0)
            return;
        length += got;
    }
    send(client, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL);
    shutdown(client, SHUT_WR);
    while (read(client, head, sizeof head) > 0)
        ;
}

int main(int argc, char **argv)
{
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &stop, NULL);
    struct pollfd fds[2] = {{.fd = signalfd(-1, &stop, SFD_CLOEXEC), .events = POLLIN},
                            {.fd = argc > 1 ? bind_listener(argv[1]) : find_listener(),
                             .events = POLLIN}};
    fcntl(fds[1].fd, F_SETFL, fcntl(fds[1].fd, F_GETFL) | O_NONBLOCK);
    notify(getenv("NOTIFY_SOCKET"));
    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            err(1, "poll");
        if (fds[0].revents)
            return 0;
        int client = fds[1].revents ? accept(fds[1].fd, NULL, NULL) : -1;
        if (client >= 0) {
            serve(client);
            close(client);
        }
    }
}
