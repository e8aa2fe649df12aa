"""Which consumers a module has. Runs in the fork server, where the user's code runs, and in the
command line's verbs that ask the broker about a module's queues.
"""

import difflib
from collections.abc import Iterator, Sequence
from types import ModuleType

from sengu.consumers.api import Found, found_in
from sengu.errors import UsageError


def consumers_of(module: ModuleType) -> tuple[Found, ...]:
    """All that it defines or imports, each once, in the order of their names there.

    Raises UsageError: none, or two of one queue.
    """
    found: dict[str, Found] = {}
    for one in _each(module):
        other = found.setdefault(one.spec.queue, one)
        if other.spec is not one.spec:
            raise UsageError(
                f"{module.__name__}: {other.spec.name} and {one.spec.name} both consume queue "
                f"{one.spec.queue}; give one of them another queue"
            )
    if not found:
        raise UsageError(
            f"{module.__name__} has no consumer; decorate a function with "
            "@sengu.consumers.consumer('queue'), or subclass sengu.consumers.Consumer"
        )
    return tuple(found.values())


def select(consumers: Sequence[Found], names: Sequence[str]) -> tuple[Found, ...]:
    """Those of these names, which are of consumers or queues, in their order; all for no names.

    Raises UsageError.
    """
    if not names:
        return tuple(consumers)
    known = {one.spec.name for one in consumers} | {one.spec.queue for one in consumers}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
            raise UsageError(f"there is no consumer {name}; {hint}")
    return tuple(one for one in consumers if {one.spec.name, one.spec.queue} & set(names))


def _each(module: ModuleType) -> Iterator[Found]:
    for thing in list(vars(module).values()):
        found = found_in(thing)
        if found is not None:
            yield found
