/* The smallest worker: says that it runs, then waits for a signal to end it.
 *
 *   announce [FIFO]
 *
 * Its first act is a line "PID GENERATION NANOSECONDS" into the FIFO, by CLOCK_MONOTONIC; then
 * READY=1 as sd_notify(3) describes, if somebody wants to hear it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void announce(const char *fifo)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const char *generation = getenv("SERVER_STARTER_GENERATION");
    char line[80];
    int size = snprintf(line, sizeof line, "%d %s %lld\n", getpid(),
                        generation && *generation ? generation : "0",
                        now.tv_sec * 1000000000LL + now.tv_nsec);
    int fd = open(fifo, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, line, size) != size)
        _exit(1);
    close(fd);
}

static void notify(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return;
    strcpy(address.sun_path, path);
    if (*path == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&address,
           offsetof(struct sockaddr_un, sun_path) + strlen(path));
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        announce(argv[1]);
    const char *path = getenv("NOTIFY_SOCKET");
    if (path && *path)
        notify(path);
    for (;;)
        pause();
}
