"""A worker process of `sengu consume`: subscribed to its consumers' queues as long as it lives.

Its main thread has the connection; jobs run in others. Ready means subscribed. Who is not for too
long ends, to be replaced. Run by `engine`.
"""

import logging
import os
import select
from collections.abc import Sequence
from typing import Any, ClassVar

from sengu.consumers.api import Found
from sengu.consumers.broker.address import BrokerError, explain, parse_brokers
from sengu.consumers.broker.link import Link
from sengu.consumers.message import Message
from sengu.consumers.model.judge import Ending, Outcome
from sengu.consumers.model.topology import topology
from sengu.consumers.worker.deadlines import InHand, label
from sengu.consumers.worker.job import Job
from sengu.consumers.worker.outbox import Copy, Needs, Outbox
from sengu.consumers.worker.runners import Runner
from sengu.consumers.worker.staff import Staff
from sengu.consumers.worker.subscription import Subscription
from sengu.consumers.worker.ward import Ward
from sengu.model.consume import EX_CONFIG, ConsumeOptions
from sengu.posix.loop import Loop
from sengu.posix.notify import notify
from sengu.work.api import Worker
from sengu.work.life import BEATS_IN_TIMEOUT
from sengu.worker import obituaries
from sengu.worker.engine import LoadError

_MAX_BEAT_SECONDS = 1.0
_CONFIRM_SECONDS = 15.0
_WAIT_SECONDS = 60.0


class Process(Worker):
    """`engine` makes a subclass with the consumers and options of the service."""

    consumers: ClassVar[Sequence[Found]] = ()
    options: ClassVar[ConsumeOptions]

    def setup(self) -> None:
        """Connect and subscribe. Raises LoadError when that cannot be; SystemExit when nobody else
        could either.
        """
        logging.getLogger("pika").setLevel(logging.CRITICAL)  # we tell what it raises
        self._prepare()
        try:
            self._staff.set_up()
            self._link.start()
            self._ask_for_time()
            while not self._is_subscribed and not self._is_ending:
                self._look_at_start()
                self._turn()
        except BaseException:  # whatever it is, what was set up is torn down
            self._staff.tear_down()
            raise
        self._tick()

    def _prepare(self) -> None:
        options = self.options
        self._loop = Loop()
        self._beat_seconds = beat_seconds(options.heartbeat_seconds)
        self._asks_at = 0.0
        self._problem: BrokerError | None = None
        self._outbox: Outbox | None = None
        self._was_subscribed = False
        self._is_ending = False
        self._starting: list[tuple[Job, Runner]] = []
        self._shown = self._told = ""
        self._blocked = ""
        self._unblocked_at = 0.0
        self._unsubscribed_since = self._loop.now()
        self._in_hand = InHand(self._loop, self._lanes, self._lose_thread)
        self._staff = Staff(self._mine(), self)
        self._subscriptions = [Subscription(one, self) for one in self._staff.assigned]
        self._needs = Needs(
            tuple(topology(one.spec) for one in self._staff.assigned), options.declares
        )
        self._ward = Ward(
            self._subscriptions, self._staff.gate, self._begin, self._in_hand.__contains__
        )
        addresses = parse_brokers(options.brokers, os.environ)
        name = f"{self.service} {self.generation}/{self.slot} (pid {os.getpid()})"
        self._link = Link(self._loop, addresses, options.amqp_heartbeat_seconds, name, self)
        self._loop.watch(self._staff.endings.fileno(), select.EPOLLIN, self._settle_ended)
        self._loop.watch(self.stopping.fileno(), select.EPOLLIN, self._stop)

    def run(self) -> None:
        self._ward.begin()
        while not self._is_drained:
            self._turn()
        self._link.close()
        while not self._link.is_closed:
            self._turn()

    def reload(self) -> None:
        """There is another configuration."""
        self._staff.equip()

    def teardown(self) -> None:
        self._staff.tear_down()

    def _mine(self) -> Sequence[Found]:
        """The consumers of this process: all, or with --split one."""
        found = self.consumers
        return (found[self.slot % len(found)],) if self.options.split else found

    # One round

    def _turn(self) -> None:
        self._loop.run_once(None)
        for one in self._subscriptions:
            one.flush()
        self._link.flush()
        self._ward.proceed()
        starting, self._starting = self._starting, []
        for job, runner in starting:
            if not job.is_over:  # given back, or lost with its connection
                self._begin(job, runner)

    def _begin(self, job: Job, runner: Runner) -> None:
        self._in_hand.begin(job, runner)
        runner.start(job)

    def _settle_ended(self) -> None:
        for job, ending in self._staff.endings.take():
            self._in_hand.end(job)
            job.settle(job, ending)

    def _tick(self) -> None:
        """As long as it is subscribed, or may be again."""
        now = self._loop.now()
        if self._is_subscribed or self._is_ending:
            self._unsubscribed_since = now
        # It may have been subscribed until just now, and that beat is not to be charged.
        elif (
            now - self._unsubscribed_since > self.options.unsubscribed_seconds + self._beat_seconds
        ):
            raise LoadError(
                f"not subscribed for {now - self._unsubscribed_since:.0f} s: {self._why}"
            )
        else:
            self._show()
        if now >= self._asks_at:
            self._asks_at = now + _MAX_BEAT_SECONDS
            self._check_confirms(now)
            self._ward.look()
        self.heartbeat()
        self._in_hand.beat()
        self._loop.call_at(now + self._beat_seconds, self._tick)

    def _check_confirms(self, now: float) -> None:
        """A broker that loses another node may forget what it was to confirm."""
        since = None if self._outbox is None else self._outbox.silent_since()
        if since is None or self._blocked:
            return
        since = max(since, self._unblocked_at)
        if now - since > _CONFIRM_SECONDS:
            problem = f"broker {self._link.address} confirms nothing for {now - since:.0f} s"
            self._link.drop(BrokerError(f"{problem}; connecting anew"))

    def _look_at_start(self) -> None:
        """Raises LoadError, SystemExit."""
        problem, limit = self._problem, self.options.connect_timeout_seconds
        if problem is not None and problem.is_final:
            raise SystemExit(EX_CONFIG)
        if limit is not None and self._loop.now() - self._unsubscribed_since > limit:
            raise LoadError(f"not connected after {limit:g} s: {self._why}")

    def _ask_for_time(self) -> None:
        """It waits for the broker, and not the server for it."""
        if not self._was_subscribed and not self._is_ending:
            notify(f"EXTEND_TIMEOUT_USEC={_WAIT_SECONDS * 1_000_000:.0f}")
            self._loop.call_at(self._loop.now() + _WAIT_SECONDS / 2, self._ask_for_time)

    @property
    def _why(self) -> str:
        return "the broker does not answer" if self._problem is None else str(self._problem)

    @property
    def _is_subscribed(self) -> bool:
        return all(one.is_subscribed for one in self._subscriptions)

    @property
    def _is_drained(self) -> bool:
        if not self._is_ending:
            return False
        outbox = self._outbox
        if len(self._in_hand):  # also those of a connection that is lost
            return False
        return all(one.is_settled for one in self._subscriptions) and (
            outbox is None or outbox.is_empty
        )

    def _stop(self) -> None:
        self._loop.unwatch(self.stopping.fileno())
        self._is_ending = True
        for one in self._subscriptions:
            one.cancel()

    def _lose_thread(self, what: str) -> None:
        """A job does not come back: others go on, in another process."""
        self.log.error("%s", what)
        self.worn("a job is stuck")

    def _show(self) -> None:
        if self._is_subscribed:
            status = "subscribed"
        else:
            seconds = self._loop.now() - self._unsubscribed_since
            status = f"not subscribed for {seconds:.0f} s: {self._why}"
        if status != self._shown:
            self._shown = status
            notify(f"STATUS={status}")

    # What the connection says (link.Caller)

    def up(self, connection: Any) -> None:
        self._blocked = ""
        self._connection = connection
        self._outbox = Outbox(connection, self._loop, self._needs, self)

    def down(self, problem: BrokerError) -> None:
        self._tell_problem(problem)
        self._outbox = None  # first: each of its channels is about to close
        for one in self._subscriptions:
            one.forget()
        self._show()

    def _tell_problem(self, problem: BrokerError) -> None:
        if str(problem) != self._told:
            self._told = str(problem)
            self.log.log(logging.ERROR if problem.is_final else logging.WARNING, "%s", problem)
        self._problem = problem

    def blocked(self, reason: str) -> None:
        self._blocked = reason
        self._unblocked_at = self._loop.now()
        if reason:
            self.log.warning("the broker takes no messages for now: %s", reason)
        else:
            self.log.info("the broker takes messages again")

    # What its outbox says (outbox.Owner)

    def opened(self) -> None:
        if not self._is_ending:
            for one in self._subscriptions:
                one.open(self._connection)

    def lost(self, outbox: Outbox, error: BaseException) -> None:
        """The rest of the connection is of no use without it."""
        if outbox is self._outbox and not self._link.is_closing:
            self._link.drop(explain(error, self._link.address))

    def refused(self, queue: str) -> None:
        self.log.warning(
            "the broker takes nothing for queue %s: it is full, or down; what is to go there stays "
            "in hand, and is tried again",
            queue,
        )

    # What subscriptions say and need (subscription.Site)

    def publish(self, copy: Copy) -> None:
        if self._outbox is not None:
            self._outbox.publish(copy)

    def last_words(self, message: Message) -> Ending | None:
        """Those of a worker that died with it, if it was one of this instance."""
        if self._obituaries is None:
            return None
        found = obituaries.find(self._obituaries, label(message))
        if found is None:
            return None
        return Ending(Outcome.KILLED, f"a worker died with it: {found.how}", found.last_words)

    def start(self, job: Job, runner: Runner) -> None:
        """When this round is over: what was acknowledged in it is with the broker then, and a
        suspect that came in it has closed the gate.
        """
        self._starting.append((job, runner))

    def ended(self, job: Job) -> None:
        self._in_hand.end(job)

    def changed(self) -> None:
        if self._is_subscribed and not self._is_ending:
            if self._was_subscribed and self._problem is not None:
                self.log.info("subscribed again")
            self._was_subscribed = True
            self._problem = None
            self._told = ""
            self._show()

    def cancelled(self, subscription: Subscription) -> None:
        self._problem = BrokerError(
            f"queue {subscription.spec.queue!r} was deleted; it is made anew"
        )
        self.log.warning("%s", self._problem)
        self._show()
        if self._outbox is not None:
            self._outbox.declare(subscription.resume)

    def closed(self, subscription: Subscription, error: BaseException) -> None:
        """Its channel, and what came through that. Others go on."""
        problem = explain(error, self._link.address)
        self._tell_problem(problem)
        subscription.forget()
        self._show()
        pause = subscription.next_pause(self._loop.now())
        self._loop.call_at(self._loop.now() + pause, lambda: self._reopen(subscription))

    def _reopen(self, subscription: Subscription) -> None:
        if self._outbox is not None and not self._is_ending:
            self._outbox.declare(lambda: subscription.open(self._connection))


def beat_seconds(limit: float | None) -> float:
    """The pause between two heartbeats of a process that is to be heard within `limit`."""
    if limit is None:
        return _MAX_BEAT_SECONDS
    return min(_MAX_BEAT_SECONDS, limit / BEATS_IN_TIMEOUT)
