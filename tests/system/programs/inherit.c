/* For LD_PRELOAD: lets a program that can only bind by itself serve on sockets that it was passed.
 *
 * bind() to the address of a socket that LISTEN_FDS promises (sd_listen_fds(3)) puts that socket in
 * the place of the program's own. What listen() does to it then is harmless: it listens already.
 * LISTEN_PID is not looked at: a program may fork before it binds.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_FD = 3 };

static int is_bound_to(int fd, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_storage found;
    socklen_t found_length = sizeof found;
    return !getsockname(fd, (struct sockaddr *)&found, &found_length) && found_length == length
           && !memcmp(&found, address, length);
}

static int take_over(int fd, int passed)
{
    int flags = fcntl(fd, F_GETFL), descriptor_flags = fcntl(fd, F_GETFD);
    if (dup2(passed, fd) < 0 || fcntl(fd, F_SETFD, descriptor_flags))
        return -1;
    return fcntl(fd, F_SETFL, flags); /* non-blocking, if the program has made it so */
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    const char *count = getenv("LISTEN_FDS");
    int last = FIRST_FD + (count ? atoi(count) : 0);
    for (int passed = FIRST_FD; passed < last; passed++)
        if (passed != fd && is_bound_to(passed, address, length))
            return take_over(fd, passed);
    int (*next)(int, const struct sockaddr *, socklen_t);
    *(void **)&next = dlsym(RTLD_NEXT, "bind");
    return next(fd, address, length);
}
