"""Control groups of version 2 (cgroups(7)): one for each worker, so that all it has started, in
whatever session or group of processes, can be ended with it.

They are made below the cgroup that we are in, where that may be done, and no controller is turned
on in them: they hold processes together and limit nothing. Only names tell whose is which, so who
adopts an instance finds them again. Nothing here is ever an error: where there is no cgroup, it is
said why, and process groups have to do. Imported by the server.
"""

import contextlib
import errno
import os
import re
import select
import signal
from collections.abc import Iterable

from sengu.posix import clock

_SYSTEMD_IS_RUNNING = "/run/systemd/system"  # sd_booted(3)
_UNIT = (".service", ".scope", ".slice")  # what the cgroups that systemd makes are named like
_DELEGATED = ("user.delegate", "trusted.delegate")  # the second may be read by root only
_PREFIX = "sengu-"
_LONGEST_NAME = 100
_MANY_ROUNDS = 100
_EVENTS_BYTES = 4096


class _Unusable(Exception):
    """Why no cgroups can be made, in words for people."""


class Cgroups:
    """The cgroup of an instance, and one in it for each key, which is a worker or its like."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    @classmethod
    def find(
        cls, instance: str, main_pid: int, systemd: str = _SYSTEMD_IS_RUNNING
    ) -> "Cgroups | str":
        """The cgroups of that instance, or why there can be none. Only looks, and makes nothing.

        `systemd` is the path that exists where systemd runs.
        """
        try:
            own = _own_directory()
            _check_type(own)
            _check_writable(own)
            _check_owner(own, os.path.exists(systemd))
        except _Unusable as refusal:
            return str(refusal)
        return cls(f"{own}/{_PREFIX}{_plain(instance)}-{main_pid}")

    def make(self, key: str) -> str:
        """The file into which a process writes `0` to get into the cgroup of `key`.

        Empty when there can be none, as there are limits to how many there may be. An existing one
        is taken as it is.
        """
        directory = self._directory_of(key)
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError:  # EAGAIN: cgroup.max.descendants; or it was taken from us since
            return ""
        return f"{directory}/cgroup.procs"

    def kill(self, key: str) -> None:
        """KILL whoever is in it and in what they have made below it. They end a moment later."""
        directory = self._directory_of(key)
        try:
            _write(f"{directory}/cgroup.kill", b"1")
        except OSError:  # ENOENT: Linux before 5.14, or there is no such cgroup
            _kill_each(directory)

    def is_empty(self, key: str) -> bool:
        """Whether nobody is left in it. Who has ended and is not reaped yet, has left."""
        try:
            return b"populated 0" in _read(f"{self._directory_of(key)}/cgroup.events")
        except OSError:  # ENOENT, ENODEV: there is none
            return True

    def others(self, keys: Iterable[str]) -> list[str]:
        """What there is besides those of `keys`; each name will do as a key."""
        known = {_plain(key) for key in keys}
        try:
            found = [entry.name for entry in os.scandir(self.directory) if entry.is_dir()]
        except FileNotFoundError:  # nobody was given one yet
            return []
        return [name for name in found if name not in known]

    def kill_all(self, patience_seconds: float) -> None:
        """KILL whoever is in any of them. Waits for their end, but not longer than that."""
        try:
            events = os.open(f"{self.directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # ENOENT: there are none
            return
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        deadline = clock.monotonic() + patience_seconds
        try:
            self.kill("")
            # Each reading rearms the poll (cgroups(7), "Cgroup v2 release notification").
            while b"populated 1" in os.pread(events, _EVENTS_BYTES, 0):
                if not poll.poll(max(0.0, deadline - clock.monotonic()) * 1000):
                    return
        except OSError:  # ENODEV: it was removed
            return
        finally:
            os.close(events)

    def remove(self, key: str) -> bool:
        """Remove an empty one; whether it is gone. Else somebody is in it: to be tried again."""
        return _remove(self._directory_of(key))

    def remove_all(self) -> bool:
        """Remove that of the instance and all in it that are empty; whether nothing is left."""
        return _remove(self.directory)

    def remove_leftovers(self) -> None:
        """Remove what instances have left behind whose main process is gone, if it is empty."""
        parent = os.path.dirname(self.directory)
        pattern = re.compile(rf"{_PREFIX}.*-([0-9]+)")
        with contextlib.suppress(OSError):  # our own cgroup was removed: we have been moved
            for name in os.listdir(parent):
                match = pattern.fullmatch(name)
                if match and not _exists(int(match[1])):
                    _remove(f"{parent}/{name}")

    def _directory_of(self, key: str) -> str:
        return f"{self.directory}/{_plain(key)}".rstrip("/")


def directory_within(cgroup: str, mountinfo: str) -> str | None:
    """The directory of the cgroup of version 2 that /proc/PID/cgroup tells; None if none shows it.

    `mountinfo` is the text of /proc/PID/mountinfo (proc_pid_mountinfo(5)). A mount may show a part
    of the hierarchy only: that below its root, the fourth field. Both files tell paths as seen
    from the reader's cgroup namespace, so that they fit each other in a container as well.
    """
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split(" ", 1)[0] != "cgroup2":
            continue
        root, mount_point = (_unescape(field) for field in fields.split(" ")[3:5])
        root = root.rstrip("/")
        if cgroup == root or cgroup.startswith(f"{root}/"):
            return (mount_point + cgroup.removeprefix(root)).rstrip("/")
    return None


def _own_directory() -> str:
    lines = _read("/proc/self/cgroup").decode(errors="surrogateescape").splitlines()
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if own is None:
        raise _Unusable("the kernel has no cgroups of version 2, or they are turned off")
    mountinfo = _read("/proc/self/mountinfo").decode(errors="surrogateescape")
    directory = directory_within(own, mountinfo)
    if directory is None:
        raise _Unusable(f"no file system of type cgroup2 is mounted that shows our cgroup {own}")
    return directory


def _check_type(own: str) -> None:
    """A process can only be put below a domain (cgroups(7), "Cgroup v2 thread mode")."""
    try:
        kind = _read(f"{own}/cgroup.type").decode().strip()
    except FileNotFoundError:  # that of the whole hierarchy is a domain and has no such file
        kind = "domain"
    except OSError as error:
        raise _Unusable(f"our cgroup {own} cannot be read: {error.strerror}") from error
    if kind != "domain":
        raise _Unusable(f"our cgroup {own} is of type {kind}: no process can be put below it")
    # What is mounted there may be covered by another mount, or show another part than we think.
    try:
        members = _members(own)
    except OSError as error:
        raise _Unusable(f"our cgroup is not at {own}: {error.strerror}") from error
    if os.getpid() not in members:
        raise _Unusable(f"our cgroup is not at {own}, as we are not listed in it")


def _check_writable(own: str) -> None:
    # Who moves a process must be allowed to write to where both cgroups meet, which is ours.
    for path in (own, f"{own}/cgroup.procs"):
        if not os.access(path, os.W_OK, effective_ids=True):
            how = "is mounted read-only" if _is_read_only(path) else "may not be written to by us"
            raise _Unusable(f"our cgroup {own} {how}")


def _check_owner(own: str, runs_systemd: bool) -> None:
    """Below a unit's cgroup only systemd makes others, unless it has delegated it: two who manage
    one tree undo each other's work (systemd.resource-control(5), Delegate=).

    Ours may be deeper than that of its unit: DelegateSubgroup=, or a sengu in a sengu.
    """
    directory = own
    while os.path.exists(f"{directory}/cgroup.procs"):
        if any(_is_set(directory, attribute) for attribute in _DELEGATED):
            return
        unit = os.path.basename(directory)
        if unit.endswith(_UNIT):
            if _was_given_to_us(directory):
                return
            raise _Unusable(
                f"our cgroup {own} belongs to systemd, which has not delegated {unit};"
                " set Delegate=pids in a service"
            )
        directory = os.path.dirname(directory)
    if runs_systemd:
        raise _Unusable(f"our cgroup {own} belongs to systemd; run as a service with Delegate=pids")


def _is_set(directory: str, attribute: str) -> bool:
    try:
        return os.getxattr(directory, attribute) == b"1"
    except OSError:  # ENODATA: not set, or not for us to see; ENOTSUP: Linux before 5.7
        return False


def _was_given_to_us(directory: str) -> bool:
    """Whether a directory is ours in one that is not: so does an old systemd (before 251) delegate
    to another user, who cannot see the attribute that tells it.
    """
    user = os.geteuid()
    above = os.stat(os.path.dirname(directory)).st_uid
    return user not in (0, above) and os.stat(directory).st_uid == user


def _is_read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _kill_each(directory: str) -> None:
    """KILL all that are listed, until no new ones are: they may fork before it reaches them."""
    killed: set[int] = set()
    for _ in range(_MANY_ROUNDS):
        listed = {path: _listed(path) - killed for path, _, _ in os.walk(directory)}
        if not any(listed.values()):
            return
        for path, pids in listed.items():
            _kill_listed(path, pids)
            killed |= pids


def _kill_listed(directory: str, pids: set[int]) -> None:
    """A number is only used if it is still listed while a pidfd holds it."""
    held: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # ended since it was listed
            held[pid] = os.pidfd_open(pid)
    still_listed = _listed(directory)
    for pid, pidfd in held.items():
        if pid in still_listed:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def _listed(directory: str) -> set[int]:
    try:
        return _members(directory)
    except OSError:  # ENODEV: it was removed; EOPNOTSUPP: a worker has made it a threaded one
        return set()


def _members(directory: str) -> set[int]:
    """Those in another pid namespace have no number here, and are told as 0."""
    return {int(pid) for pid in _read(f"{directory}/cgroup.procs").split()} - {0}


def _remove(directory: str) -> bool:
    """Remove it with all cgroups in it, as far as they are empty; whether it is gone."""
    try:
        os.rmdir(directory)
        return True
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            return False
    # Somebody is in it, or it has cgroups of its own: a worker's have been made by the worker.
    try:
        below = [entry.path for entry in os.scandir(directory) if entry.is_dir()]
    except FileNotFoundError:
        return True
    were_removed = [_remove(path) for path in below]
    return bool(below) and all(were_removed) and _remove(directory)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.@-]", "_", name)[:_LONGEST_NAME]


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
