"""Who is in a session, and who holds a socket: questions answered by /proc (proc(5)).

Only looks: nothing here signals, waits or keeps a pid. What it returns may be outdated when the
caller reads it, so a pid from here is for telling and never for killing. Imported by the server.
"""

import os
from collections.abc import Set

_MOST_BYTES = 1 << 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def session_members(session: int) -> list[int]:
    """The pids of all processes in that session, zombies included.

    getsid(2) is asked for each pid instead of reading field 6 of /proc/PID/stat: a sixth of
    the time, and no command name in the way that may hold ") ".
    """
    return [pid for pid in _pids() if _session_of(pid) == session]


def has_group(group: int) -> bool:
    """Whether anybody in that process group runs; one that nobody has reaped does not."""
    return any(_group_of(pid) == group and not _is_zombie(pid) for pid in _pids())


def held_sockets(pid: int, among: Set[int]) -> set[int]:
    """Those of the inodes `among` whose socket that process has open; nothing if it is gone.

    Raises PermissionError when its descriptors may not be looked at: a process of another user,
    or one whose program was executed with raised privileges (file capabilities, set-user-ID).
    """
    return set(_descriptors_of(pid, among))


def holders(inodes: Set[int], but_not: Set[int] = frozenset()) -> dict[int, tuple[int, int]]:
    """Of each of these sockets (pid, descriptor) in some process that has it open.

    That is none of the processes `but_not`, and we are the last to be looked at. A socket is left
    out when nobody has it, or only processes that may not be looked at, or it is under way in a
    message (SCM_RIGHTS).
    """
    found: dict[int, tuple[int, int]] = {}
    own = os.getpid()
    for pid in sorted(_pids(), key=lambda pid: pid == own):
        if not (missing := inodes - found.keys()):
            break
        if pid in but_not:
            continue
        try:
            held = _descriptors_of(pid, missing)
        except PermissionError:  # another user's
            continue
        found |= {inode: (pid, descriptor) for inode, descriptor in held.items()}
    return found


def _descriptors_of(pid: int, among: Set[int]) -> dict[int, int]:
    """Those of the inodes `among` that the process has open, with a descriptor of each."""
    directory = f"/proc/{pid}/fd"
    missing = {f"socket:[{inode}]": inode for inode in among}
    held: dict[int, int] = {}
    try:
        descriptors = os.listdir(directory)
    except (FileNotFoundError, ProcessLookupError):  # exited
        return held
    except PermissionError:
        if _is_zombie(pid):  # its descriptors are closed, but the directory is now root's
            return held
        raise
    # The newest first: they are what one looks for, and a busy worker may hold thousands.
    for descriptor in reversed(descriptors):
        if not missing:
            break
        inode = missing.pop(_link(f"{directory}/{descriptor}"), None)
        if inode is not None:
            held[inode] = int(descriptor)
    return held


def parent_of(pid: int) -> int:
    """0 when it is gone, nobody's child, or not for us to see."""
    try:
        return int(_stat(pid)[1])
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # reaped; hidepid in proc(5)
        return 0


def variable_of(pid: int, name: str) -> str:
    """What the process was executed with; empty if that is not set, or not for us to see."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            pairs = stream.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or another user's
        return ""
    prefix = os.fsencode(f"{name}=")
    found = [pair.removeprefix(prefix) for pair in pairs if pair.startswith(prefix)]
    return os.fsdecode(found[0]) if found else ""


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:  # exited since it was listed
        return None


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:  # exited since it was listed
        return None


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except (FileNotFoundError, ProcessLookupError):  # the descriptor or its process is gone
        return ""


def _is_zombie(pid: int) -> bool:
    try:
        return _stat(pid)[0] in {b"Z", b"X"}
    except (FileNotFoundError, ProcessLookupError):  # reaped meanwhile
        return True


def _stat(pid: int) -> list[bytes]:
    """/proc/PID/stat from the third field on, behind a name that may hold anything."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return stat.read().rpartition(b")")[2].split()


def resident_bytes() -> int:
    """Our own resident memory, what is shared included (proc_pid_statm(5))."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * _PAGE_BYTES


def memory_of(pid: int) -> tuple[int, int, int] | None:
    """Bytes that are resident, that are the process's alone, and that are its share: each page
    divided by those who have it (proc_pid_smaps(5)). None: gone, or not for us to see."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as stream:  # no codec that is still to load
            fields = dict(line.split(b":", 1) for line in stream if line.endswith(b"kB\n"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    sizes = {name: int(value.split()[0]) << 10 for name, value in fields.items()}
    own = sizes[b"Private_Clean"] + sizes[b"Private_Dirty"]
    return sizes[b"Rss"], own, sizes[b"Pss"]


def memory_file_of(pid: int, name: str) -> bytes | None:
    """What is in the memory file of that name which the process has open, a mebibyte at most. None:
    there is none, or it is not for us to see."""
    directory, link = f"/proc/{pid}/fd", f"/memfd:{name} (deleted)"
    try:
        for fd in os.listdir(directory):
            if _link(f"{directory}/{fd}") == link:
                return _beginning_of(f"{directory}/{fd}")
    except OSError:  # gone, another user's, or by now what has no beginning to be read
        return None
    return None


def _beginning_of(path: str) -> bytes:
    """Never waits, whatever its owner may have put there. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(fd, _MOST_BYTES, 0)
    finally:
        os.close(fd)
