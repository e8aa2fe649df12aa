/* An HTTP server that misbehaves on demand, for the system tests.
 *
 * puppet [SCRIPT]: obeys the lines of the file SCRIPT, read at each start, and then serves:
 *   say TEXT      write TEXT to stderr       flood BYTES  write so many bytes of lines to stderr
 *   exit N        exit at once               die N        die by signal N at once
 *   wait FIFO     go on when FIFO has been opened for writing and closed
 *   mute          never say READY=1, and take no client       deaf  ignore TERM
 *   run COMMAND   start a shell command in our process group, do not wait for it
 *   beat MS       say WATCHDOG=1 so often    tell TEXT    send TEXT to NOTIFY_SOCKET
 * Requests: / answers "GENERATION SLOT PID", /slow/MS says 102 and does so after MS milliseconds,
 * /exit/N exits, /hang answers and then does nothing any more.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
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

static const char IN_HAND[] = "HTTP/1.1 102 Processing\r\n\r\n";
static bool mute, deaf, hang;
static int beat_ms = -1;

static void sleep_ms(long ms)
{
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}

static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || !*path || strlen(path) >= sizeof address.sun_path)
        return;
    strcpy(address.sun_path, path);
    if (*path == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    if (fd >= 0) {
        sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, length);
        close(fd);
    }
}

static void flood(long bytes)
{
    char line[101];
    for (long number = 0; bytes > 0; number++, bytes -= 100) {
        snprintf(line, sizeof line, "flood %d %010ld %*s\n", getpid(), number, 60, "");
        size_t length = strlen(line);
        memset(line + length - 1, '.', 100 - length);
        line[99] = '\n';
        for (size_t done = 0; done < 100;) {
            ssize_t put = write(2, line + done, 100 - done);
            if (put < 0)
                err(1, "stderr");
            done += put;
        }
    }
}

static void run(const char *command)
{
    sigset_t none;
    if (fork())
        return;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int fd = FIRST_FD; fd < FIRST_FD + MAX_LISTENERS; fd++)
        close(fd);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

static void obey(char *line)
{
    char *rest = line + strcspn(line, " \n");
    if (*rest)
        *rest++ = '\0';
    rest[strcspn(rest, "\n")] = '\0';
    if (!strcmp(line, "say"))
        dprintf(2, "%s\n", rest);
    else if (!strcmp(line, "flood"))
        flood(atol(rest));
    else if (!strcmp(line, "exit"))
        exit(atoi(rest));
    else if (!strcmp(line, "die")) {
        signal(atoi(rest), SIG_DFL);
        raise(atoi(rest));
    } else if (!strcmp(line, "wait")) {
        char byte;
        int fd = open(rest, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, &byte, 1) < 0)
            err(1, "%s", rest);
        close(fd);
    } else if (!strcmp(line, "mute"))
        mute = true;
    else if (!strcmp(line, "deaf"))
        deaf = true;
    else if (!strcmp(line, "run"))
        run(rest);
    else if (!strcmp(line, "tell"))
        notify(rest);
    else if (!strcmp(line, "beat"))
        beat_ms = atoi(rest);
    else if (*line)
        errx(2, "unknown word %s", line);
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
}

static void serve(int client)
{
    struct timeval patience = {.tv_sec = CLIENT_SECONDS};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    char head[2048] = "", body[64], answer[256], path[64] = "/";
    size_t length = 0;
    while (!strstr(head, "\r\n\r\n") && length < sizeof head - 1) {
        ssize_t got = read(client, head + length, sizeof head - 1 - length);
        if (got <= 0)
            return;
        head[length += got] = '\0';
    }
    sscanf(head, "GET %63s", path);
    if (!strncmp(path, "/slow/", 6)) {
        send(client, IN_HAND, sizeof IN_HAND - 1, MSG_NOSIGNAL);
        sleep_ms(atol(path + 6));
    } else if (!strncmp(path, "/exit/", 6))
        exit(atoi(path + 6));
    hang = !strcmp(path, "/hang");
    int size = snprintf(body, sizeof body, "%s %s %d\n", getenv("SENGU_GENERATION"),
                        getenv("SENGU_SLOT"), getpid());
    size = snprintf(answer, sizeof answer,
                    "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", size,
                    body);
    if (send(client, answer, size, MSG_NOSIGNAL) != size)
        return;
    /* Closing with bytes unread would send a reset, which can overtake the answer. */
    shutdown(client, SHUT_WR);
    while (read(client, head, sizeof head) > 0)
        ;
}

int main(int argc, char **argv)
{
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    if (argc > 1)
        perform(argv[1]);
    sigprocmask(SIG_BLOCK, &stop, NULL);
    struct pollfd fds[1 + MAX_LISTENERS];
    int count = getenv("LISTEN_FDS") ? atoi(getenv("LISTEN_FDS")) : 0;
    fds[0].fd = deaf ? -1 : signalfd(-1, &stop, SFD_CLOEXEC);
    for (int i = 0; i <= count; i++) {
        fds[i].events = POLLIN;
        fds[i].revents = 0;
        if (i == 0)
            continue;
        fds[i].fd = FIRST_FD + i - 1;
        fcntl(fds[i].fd, F_SETFL, fcntl(fds[i].fd, F_GETFL) | O_NONBLOCK);
    }
    if (mute)
        count = 0;
    else
        notify("READY=1");
    for (unsigned turn = 0;; turn++) {
        if (hang)
            pause();
        int found = poll(fds, 1 + count, beat_ms);
        if (beat_ms >= 0)
            notify("WATCHDOG=1");
        if (found <= 0)
            continue;
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
