"""Finds and ends what a test left running.

Processes are found by descent, not by a mark in their environment: a process that sets its
title overwrites what /proc shows of its environment, and may well have cleared it.
"""

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Set
from contextlib import suppress
from pathlib import Path

# glibc's posix_spawn ignores the two that it keeps for itself, 32 and 33, and gives no way back.
INTERNAL_SIGNALS = 0b11 << 31

# How long what a test started may take to follow the main process into its end.
SETTLE_SECONDS = 10.0
ROUND_SECONDS = 0.1
KILL_SECONDS = 10.0

_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

_kept: list[subprocess.Popen[bytes]] = []


def become_subreaper() -> None:
    """Whatever a test starts stays our descendant, so that no daemon can hide from the check."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


def keep(process: subprocess.Popen[bytes]) -> None:
    """Do not take it, nor what it starts, for something that a test has left behind.

    For what serves more than one test, and ends when this process does.
    """
    _kept.append(process)


def descendants() -> set[int]:
    """Pids of all living processes below this one, but for kept ones; zombies are not alive."""
    _kept[:] = [process for process in _kept if process.poll() is None]
    return descendants_of(os.getpid(), {process.pid for process in _kept})


def descendants_of(root: int, but_for: Set[int] = frozenset()) -> set[int]:
    """Likewise of any process, without those of `but_for` and what is below them."""
    children: dict[int, list[int]] = {}
    zombies = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):  # it ended since the listing
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if int(entry.name) in but_for:
            continue
        children.setdefault(int(parent), []).append(int(entry.name))
        if state in "ZX":
            zombies.add(int(entry.name))
    found: set[int] = set()
    unvisited = [root]
    while unvisited:
        below = children.get(unvisited.pop(), [])
        found.update(below)
        unvisited.extend(below)
    return found - zombies


def wait_gone(pids: Iterable[int], timeout: float) -> set[int]:
    """Those of the processes that still live after `timeout` seconds.

    Orphans that have come to us are reaped: whoever waits for a process group to be empty sees the
    zombies in it.
    """
    living = {}
    for pid in pids:
        with suppress(ProcessLookupError):
            living[os.pidfd_open(pid)] = pid
    deadline = time.monotonic() + timeout
    try:
        while living:
            ended = select.select(list(living), [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ended:
                break
            for pidfd in ended:
                with suppress(ChildProcessError):
                    os.waitpid(living.pop(pidfd), os.WNOHANG)
                os.close(pidfd)
        return set(living.values())
    finally:
        for pidfd in living:
            os.close(pidfd)


def kill_descendants(known: set[int]) -> set[int]:
    """Ends what a test left behind, besides `known`; returns the pids that had to be killed."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while leaked := wait_gone(descendants() - known, ROUND_SECONDS):
        if time.monotonic() > deadline:
            break
        _reap()  # zombies too, which a living one may look at
    # Anew in each round: a killed parent's children come to us, and may have forked since.
    while living := descendants() - known:
        for pid in living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_gone(living, KILL_SECONDS)
    _reap()
    return leaked


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
