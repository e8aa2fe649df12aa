"""Makes listening sockets from addresses. Raises UsageError with the next step."""

import errno
import os
import socket
import stat

from sengu.errors import UsageError
from sengu.model.address import Address, InetAddress, UnixAddress

_ADVICE = {
    errno.EACCES: "permission denied; grant CAP_NET_BIND_SERVICE or use a port above 1023",
    errno.EADDRINUSE: "address already in use; stop what listens there (`ss -lptn`) or use another",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address; use one it has",
    errno.EAFNOSUPPORT: "this machine has no such address family; use IPv4",
}


def open_listener(address: Address, backlog: int, path_mode: int) -> socket.socket:
    """Bind `address`, and listen if it is a stream. The socket is close-on-exec and blocking."""
    try:
        if isinstance(address, UnixAddress):
            return _open_unix(address, backlog, path_mode)
        return _open_inet(address, backlog)
    except OSError as error:  # or not even a socket: no descriptor is left, or no such family
        raise _cannot_bind(address, error) from error


def _cannot_bind(address: Address, error: OSError) -> UsageError:
    return UsageError(f"cannot bind {address}: {_ADVICE.get(error.errno or 0, error.strerror)}")


def open_first(address: InetAddress, backlog: int) -> socket.socket:
    """Found a group of sockets on `address` (SO_REUSEPORT). Raises UsageError, also when somebody
    is there already: the kernel would take us into a group of the same user's without a word."""
    try:
        _bind_inet(address).close()
        return open_next(address, backlog)
    except OSError as error:
        raise _cannot_bind(address, error) from error


def open_next(address: InetAddress, backlog: int) -> socket.socket:
    """Let one more socket join the group on `address`. Raises UsageError."""
    try:
        sock = _bind_inet(address, is_of_group=True)
        return sock if address.udp else _listen(sock, backlog)
    except OSError as error:
        raise _cannot_bind(address, error) from error


def _open_inet(address: InetAddress, backlog: int) -> socket.socket:
    sock = _bind_inet(address)
    return sock if address.udp else _listen(sock, backlog)


def _bind_inet(address: InetAddress, *, is_of_group: bool = False) -> socket.socket:
    family = socket.AF_INET6 if address.ipv6 else socket.AF_INET
    kind = socket.SOCK_DGRAM if address.udp else socket.SOCK_STREAM
    # As bytes: text has Python load its IDNA codec, which another user (`posix.peer`) may not find.
    host = address.host.encode() if address.host.isascii() else address.host
    try:
        found = socket.getaddrinfo(host, address.port, family, kind)
    except socket.gaierror as error:
        raise UsageError(
            f"cannot bind {address}: the name does not resolve ({error.strerror}); "
            "write an address of this machine"
        ) from error
    sock = socket.socket(family, kind)
    try:
        if not address.udp:  # there it would let two servers have the port, one of them in vain
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_of_group:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if address.ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(found[0][4])
    except OSError:
        sock.close()
        raise
    return sock


def _listen(sock: socket.socket, backlog: int) -> socket.socket:
    try:
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(address: UnixAddress, backlog: int, path_mode: int) -> socket.socket:
    path = address.path
    if not address.is_abstract:
        remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode is there from the first moment: a chmod after bind would come too late.
    previous = os.umask(~path_mode & 0o777)
    try:
        sock.bind("\0" + path[1:] if address.is_abstract else path)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        advice = {
            errno.ENOENT: "no such directory; create it first",
            errno.EACCES: "permission denied; use a directory that this user may write to",
            errno.EADDRINUSE: "somebody listens there already; stop that or use another name",
        }.get(error.errno or 0, error.strerror)
        raise UsageError(f"cannot bind {path}: {advice}") from error
    finally:
        os.umask(previous)
    return sock


def remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on. Raises UsageError if somebody does."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # not there, or not reachable: bind says what is wrong
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{path} exists and is not a socket; move it away or use another path")
    if is_alive(path):
        raise UsageError(
            f"somebody is listening on {path} already; stop that first or use another path"
        )
    try:
        os.unlink(path)
    except FileNotFoundError:  # somebody else has cleaned up
        pass
    except OSError as error:
        raise UsageError(
            f"cannot remove the stale socket {path}: {error.strerror}; remove it or use another"
        ) from error


def is_alive(path: str) -> bool:
    """Whether a process listens on the socket file. Only a refusal says no."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # full queue, or another type of socket: somebody is there
            return True
    return True


def file_identity(path: str) -> tuple[int, int] | None:
    """Device and inode of what is at `path` now; None when nothing is."""
    try:
        found = os.lstat(path)
    except OSError:  # removed, or its directory is
        return None
    return found.st_dev, found.st_ino
