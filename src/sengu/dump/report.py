"""What one process tells of itself: the stacks of its threads and tasks, and its memory, as lines.

Everything is looked at from beside: no code of the application runs, and nothing is imported.
"""

import collections
import gc
import itertools
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

from sengu.posix.procfs import memory_of

_MOST_TYPES = 8
_MOST_TASKS = 1000
_DEEPEST = 100  # coroutines that await each other
_MIB = 1 << 20
_COMMON = ("<frozen ", threading.__file__, os.path.dirname(os.path.dirname(__file__)))


def describe_process(who: str, frame: FrameType | None) -> str:
    """All of it, for people. `frame` is where the calling thread was before it was asked."""
    pid = os.getpid()
    found = gc.get_objects()
    lines = [f"sengu: where {who} is, pid {pid}:", f"  {describe_memory(pid)}", _objects(found)]
    lines.extend(_threads(frame))
    lines.extend(_tasks(found))
    lines.append(f"sengu: that was pid {pid}")
    return "\n".join(lines) + "\n"


def describe_memory(pid: int) -> str:
    """`memory: 20.1 MiB resident, 4.5 MiB its own, …`: what a fork has left is shared."""
    memory = memory_of(pid)
    if memory is None:
        return "memory: may not be looked at"
    resident, own, share = (f"{number / _MIB:.1f} MiB" for number in memory)
    return f"memory: {resident} resident, {own} its own, {share} with its share of what is shared"


def _objects(found: list[Any]) -> str:
    counts = collections.Counter(type(one).__name__ for one in found)
    most = ", ".join(f"{name} {count}" for name, count in counts.most_common(_MOST_TYPES))
    since = "/".join(str(count) for count in gc.get_count())
    frozen = gc.get_freeze_count()
    return f"  objects: {len(found)}, and {frozen} frozen before the fork; gc {since}; most: {most}"


def _threads(own: FrameType | None) -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield f"  thread {names.get(ident, 'unknown to Python')} ({ident}):"
        place = own if own is not None and ident == threading.get_ident() else frame
        yield from _indented(traceback.StackSummary.from_list(_beginning(place)).format())


def _beginning(frame: FrameType) -> list[traceback.FrameSummary]:
    """Outermost first, without what every thread of ours begins with; its end, if that is all."""
    stack = traceback.extract_stack(frame)
    return list(itertools.dropwhile(_is_common, stack)) or stack[-2:]


def _is_common(entry: traceback.FrameSummary) -> bool:
    return entry.filename.startswith(_COMMON)


def _tasks(found: list[Any]) -> Iterator[str]:
    """Of all event loops: no public function tells of another thread's."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return
    # By type(): isinstance would ask a proxy of the application's, which may do anything.
    tasks = [one for one in found if issubclass(type(one), asyncio.Task) and not one.done()]
    for task in tasks[:_MOST_TASKS]:
        yield f"  task {task.get_name()}:"
        stack = traceback.StackSummary.extract((one, one.f_lineno) for one in _awaiting(task))
        yield from _indented(stack.format())
    if len(tasks) > _MOST_TASKS:
        yield f"  and {len(tasks) - _MOST_TASKS} tasks more"


def _awaiting(task: Any) -> Iterator[FrameType]:
    """The frames of a task's coroutine, of what it awaits, and so on."""
    waiting = task.get_coro()
    for _ in range(_DEEPEST):
        if type(waiting).__name__ in _WRAPPERS:
            waiting = next(filter(_has_frame, gc.get_referents(waiting)), None)
        for frame_name, next_name in _LINKS:
            frame = getattr(waiting, frame_name, None)
            if frame is not None:
                yield frame
                waiting = getattr(waiting, next_name, None)
                break
        else:
            return


def _has_frame(one: object) -> bool:
    return any(hasattr(type(one), frame_name) for frame_name, _ in _LINKS)


# Between one and the next, without a name for what they hold.
_WRAPPERS = {"async_generator_asend", "async_generator_athrow", "coroutine_wrapper"}
_LINKS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


def _indented(entries: list[str]) -> Iterator[str]:
    for entry in entries:
        for line in entry.rstrip("\n").split("\n"):
            yield f"  {line}"
