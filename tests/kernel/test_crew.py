"""The crew: what becomes of workers who are told to go, with the test as supervisor."""

import os
import signal
from contextlib import ExitStack

from sengu.model import events as ev
from sengu.model.observed import Phase, Worker
from sengu.server.link import Kin
from sengu.wire import supervisor as wire
from tests.kernel.children import Child, in_child, run_until
from tests.kernel.prompter import Prompter
from tests.kernel.test_adopt import Ears, make_parts


def test_who_is_killed_and_gone_before_all_is_settled_is_gone_once() -> None:
    """Its process has ended, and what that has left behind is killed with others."""

    def body() -> None:
        ears = Ears()
        with ExitStack() as stack:
            child = stack.enter_context(Child(lambda child: child.wait_for_go()))
            prompter = stack.enter_context(Prompter())
            parts = make_parts(prompter, [Kin("worker/1", child.pid, os.dup(child.pidfd), 0)], ears)
            stopping = Worker(1, 1, 0, child.pid, Phase.STOPPING, 0.0, stop_signal=signal.SIGTERM)
            assert parts.crew.adopt(stopping)
            loop = parts.loop
            loop.run_once(loop.now())  # that it has ended is heard, and what is left asked to end
            parts.crew.kill(1)
            prompter.say(wire.Gone("worker/1"))
            run_until(loop, lambda: bool(ears.facts))
            loop.run_once(loop.now())
            assert ears.facts == [ev.WorkerExited(1, "exit status 0", "")]

    in_child(body)


def test_what_an_application_calls_a_worker_is_none() -> None:
    """It may tell the supervisor of a child of its own, by any key."""

    def body() -> None:
        with ExitStack() as stack:
            child = stack.enter_context(Child(lambda child: child.wait_for_go()))
            prompter = stack.enter_context(Prompter())
            kin = [Kin("worker/none", child.pid, os.dup(child.pidfd), 0)]
            parts = make_parts(prompter, kin, Ears())
            parts.crew.adopt_remnants()
            assert parts.children.end_unwanted() == []
            assert parts.children.keys() == []

    in_child(body)
