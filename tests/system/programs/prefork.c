/* An HTTP server of several processes, each of which binds a socket of its own with SO_REUSEPORT:
 * it knows nothing of sengu. It answers "GENERATION PID", always as long. On TERM its processes close their
 * sockets, whoever waits there, and answer what they have accepted.
 *
 * prefork SCRIPT: obeys the lines of the file SCRIPT, read at each start:
 *   bind HOST PORT  where to listen        sockets N  how many processes
 *   slow MS         an answer takes so long (else none)
 *   rude            on TERM break off what was accepted
 *   deaf            on TERM do nothing     late MS    bind so long after the start
 *   notify          say READY=1            user UID   be that user
 *   hidden          let nobody of the same user look in (PR_SET_DUMPABLE)
 *   die MS          exit so long after all listen
 * On USR1 one of its processes ends as by TERM, and another takes its place.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CLIENTS = 1000, MAX_HEAD = 1024, BACKLOG = 1024, MAX_PROCESSES = 16 };

static char host[64] = "127.0.0.1";
static int port, processes = 1, slow_ms, late_ms, user = -1, die_ms = -1;
static bool rude, deaf, says_ready, hidden;

static struct pollfd polled[2 + MAX_CLIENTS];
static struct { size_t length; long due; char head[MAX_HEAD]; } clients[2 + MAX_CLIENTS];
static int count = 2; /* of `polled`: signals, the listener, then clients */

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void obey(const char *line)
{
    char word[32] = "";
    int number = 0;
    if (sscanf(line, "bind %63s %d", host, &port) == 2 || sscanf(line, "%31s %d", word, &number) < 1)
        return;
    if (!strcmp(word, "sockets"))
        processes = number;
    else if (!strcmp(word, "slow"))
        slow_ms = number;
    else if (!strcmp(word, "late"))
        late_ms = number;
    else if (!strcmp(word, "user"))
        user = number;
    else if (!strcmp(word, "die"))
        die_ms = number;
    else if (!strcmp(word, "rude"))
        rude = true;
    else if (!strcmp(word, "deaf"))
        deaf = true;
    else if (!strcmp(word, "notify"))
        says_ready = true;
    else if (!strcmp(word, "hidden"))
        hidden = true;
    else
        errx(2, "unknown word %s", word);
}

static int listen_there(void)
{
    bool six = strchr(host, ':');
    int fd = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 address6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    inet_pton(six ? AF_INET6 : AF_INET, host,
              six ? (void *)&address6.sin6_addr : (void *)&address.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (bind(fd, six ? (struct sockaddr *)&address6 : (struct sockaddr *)&address,
             six ? sizeof address6 : sizeof address) || listen(fd, BACKLOG))
        err(1, "cannot bind %s port %d", host, port);
    return fd;
}

static void let_go(int number)
{
    close(polled[number].fd);
    count--;
    polled[number] = polled[count];
    clients[number] = clients[count];
}

static bool read_head(int number)
{
    size_t room = MAX_HEAD - 1 - clients[number].length;
    char *end = clients[number].head + clients[number].length;
    ssize_t got = read(polled[number].fd, end, room);
    if (got < 0 && errno == EAGAIN)
        return true;
    if (got <= 0)
        return false;
    clients[number].length += got;
    end[got] = '\0';
    if (strstr(clients[number].head, "\r\n\r\n")) {
        clients[number].due = now_ms() + slow_ms;
        polled[number].events = 0;
    }
    return true;
}

static void answer(int number)
{
    char body[64], text[256];
    int size = snprintf(body, sizeof body, "%s %07d", getenv("SENGU_GENERATION"), getpid());
    size = snprintf(text, sizeof text,
                    "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", size,
                    body);
    send(polled[number].fd, text, size, MSG_NOSIGNAL);
}

static void accept_all(void)
{
    while (count < 2 + MAX_CLIENTS) {
        int fd = accept4(polled[1].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        polled[count] = (struct pollfd){.fd = fd, .events = POLLIN};
        clients[count].length = clients[count].due = 0;
        clients[count++].head[0] = '\0';
    }
}

static void stop(void)
{
    struct signalfd_siginfo info;
    struct linger reset = {1, 0};
    if (read(polled[0].fd, &info, sizeof info) < 0 || deaf)
        return;
    close(polled[1].fd);
    polled[1].fd = -1;
    for (int number = 2; rude && number < count; number++)
        setsockopt(polled[number].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (rude)
        _exit(0);
}

static int patience(void)
{
    long least = -1, now = now_ms();
    for (int number = 2; number < count; number++) {
        long left = clients[number].due - now;
        if (clients[number].due && (least < 0 || left < least))
            least = left > 0 ? left : 0;
    }
    return least;
}

static void serve(int signals, int told)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    polled[0] = (struct pollfd){.fd = signals, .events = POLLIN};
    polled[1] = (struct pollfd){.fd = listen_there(), .events = POLLIN};
    if (write(told, "", 1) != 1)
        err(1, "pipe");
    while (polled[1].fd >= 0 || count > 2) {
        poll(polled, count, patience());
        if (polled[0].revents)
            stop();
        if (polled[1].fd >= 0 && polled[1].revents)
            accept_all();
        for (int number = count - 1; number >= 2; number--) {
            bool stays = !polled[number].revents || clients[number].due || read_head(number);
            if (stays && clients[number].due && now_ms() >= clients[number].due) {
                answer(number);
                stays = false;
            }
            if (!stays)
                let_go(number);
        }
    }
    _exit(0);
}

static void notify(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || *path != '@' || strlen(path) >= sizeof address.sun_path)
        errx(1, "no NOTIFY_SOCKET");
    strcpy(address.sun_path, path);
    address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    if (fd < 0 || sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&address, length) != 7)
        err(1, "READY=1");
    close(fd);
}

static pid_t start(int signals)
{
    char byte;
    int told[2];
    if (pipe(told))
        err(1, "pipe");
    pid_t pid = fork();
    if (pid == 0)
        serve(signals, told[1]);
    close(told[1]);
    if (pid < 0 || read(told[0], &byte, 1) != 1)
        errx(1, "a process does not listen");
    close(told[0]);
    return pid;
}

static void perform(const char *script)
{
    char line[512];
    FILE *stream = fopen(script, "re");
    if (!stream)
        err(1, "%s", script);
    while (fgets(line, sizeof line, stream))
        obey(line);
    fclose(stream);
    if (user >= 0 && (setgroups(0, NULL) || setresgid(user, user, user) ||
                      setresuid(user, user, user)))
        err(1, "user %d", user);
    if (hidden)
        prctl(PR_SET_DUMPABLE, 0);
    usleep(late_ms * 1000);
}

int main(int argc, char **argv)
{
    sigset_t set;
    int signals, ended = 0;
    pid_t pids[MAX_PROCESSES];
    if (argc != 2)
        errx(2, "usage: prefork SCRIPT");
    perform(argv[1]);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    for (int number = 0; number < processes; number++)
        pids[number] = start(signals);
    if (says_ready)
        notify();
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    while (ended < processes) {
        struct timespec patience = {die_ms / 1000, die_ms % 1000 * 1000000};
        int number = sigtimedwait(&set, NULL, die_ms >= 0 ? &patience : NULL);
        if (number < 0) /* its processes are killed with it */
            errx(1, "dies as it was told");
        if (number == SIGUSR1) {
            kill(pids[0], SIGTERM);
            waitpid(pids[0], NULL, 0);
            pids[0] = start(signals);
        }
        for (int which = 0; number == SIGTERM && which < processes; which++)
            kill(pids[which], SIGTERM);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ended++;
    }
    return 0;
}
