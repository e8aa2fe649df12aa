"""One address, and how its connections get from those who listen to those who shall.

At rest nothing is steered, and the kernel spreads connections over all. A crossing begins when
others are about to join, and ends when those who were to go are gone. Imported by `passage`.
"""

from collections.abc import Callable, Mapping, Sequence, Set

import msgspec

from sengu.model.passage import PassageStatus
from sengu.passage.group import Group, Look
from sengu.passage.ladder import Choice, Ladder
from sengu.passage.steering import Steered
from sengu.passage.vigil import Vigil

_NUDGES = 100


class Scene(msgspec.Struct, frozen=True):
    """What the planner wants, by worker id.

    `chosen` shall get connections, `leaving` are to be emptied. `is_moving`: others than the chosen
    live, or are about to. `deploy` is the generation of the deploy under way, 0 if there is none.
    """

    chosen: Sequence[int] = ()
    leaving: Sequence[int] = ()
    starting: Sequence[int] = ()
    living: Sequence[int] = ()
    newest: int | None = None
    is_moving: bool = False
    deploy: int = 0


class Crossing:
    """`tell` and `warn` get lines for people."""

    def __init__(
        self, group: Group, ladder: Ladder, tell: Callable[[str], None], warn: Callable[[str], None]
    ) -> None:
        self.group = group
        self._ladder = ladder
        self._tell = tell
        self._warn = warn
        self.choice: Choice | None = None
        self._sockets = 0
        self._is_at_work = False
        self._is_ending = False  # it is being let go
        self._deploy = 0
        self._steered = Steered.NOT_YET
        self._chosen: Set[int] = frozenset()
        self._vigil: Vigil | None = None
        self._passed: Set[int] = frozenset()  # workers that got no more connections at its turn
        self._nudges = 0

    def status(self) -> PassageStatus:
        address, choice = str(self.group.address), self.choice
        if choice is None:
            return PassageStatus(address, "", self._sockets)
        return PassageStatus(address, choice.steering.name, self._sockets, choice.remark)

    @property
    def is_busy(self) -> bool:
        """Whether it has to be looked at again soon."""
        return self._is_at_work or self._nudges > 0

    def follow(self, scene: Scene, look: Look, now: float) -> None:
        """Do what can be done by now. Raises OSError."""
        self._sockets = len(look.sockets)
        if self.choice is None and scene.chosen and look.of(scene.chosen):
            self._choose(look)
            # Whoever was here before us may have been killed before it had let go.
            self._is_at_work = not scene.is_moving
        if self.choice is None:
            return
        if scene.is_moving and not self._is_at_work:
            self._choose(look)
            self._hold(scene, look)
            self._is_at_work = True
        elif self._goes_on(scene):
            self._hold(scene, look)
        if self._is_at_work:
            self._steer(scene, look, now)
            self.choice.steering.tend(look)
            if not scene.deploy and not scene.leaving:  # the old ones close, if they have not yet
                self._nudges = _NUDGES if self.choice.steering.migrates else 0
            if not scene.is_moving:
                self._end(look)
        if self._nudges:
            self._nudge(scene, look)

    def verdicts(self, scene: Scene, look: Look, now: float) -> Mapping[int, str]:
        """Which of those who leave need not be waited for any more, each with why."""
        if self._steered is Steered.NEVER:
            return dict.fromkeys(scene.leaving, "it cannot be steered past")
        if not scene.chosen:
            return dict.fromkeys(scene.leaving, "nobody else listens")
        passed = [worker for worker in scene.leaving if worker in self._passed]
        if self._vigil is None or not self._vigil.is_over(look.waiting(passed), now):
            return {}
        return dict.fromkeys(passed, "nobody waits for it any more")

    def _goes_on(self, scene: Scene) -> bool:
        """Whether others are about to join before those of before have all gone."""
        return scene.deploy not in {0, self._deploy} or (self._is_ending and scene.is_moving)

    def _choose(self, look: Look) -> None:
        before = self.choice
        self.choice = self._ladder.choose(look)
        if before is None or before.steering.name is not self.choice.steering.name:
            self._tell(f"{self.group.address}: steered by {self.choice.steering.name}")
            if self.choice.remark:
                self._warn(f"{self.group.address}: {self.choice.remark}")

    def _hold(self, scene: Scene, look: Look) -> None:
        assert self.choice is not None
        self._steered = Steered.NOT_YET
        self._is_ending = False
        self._nudges = 0
        self.choice.steering.hold(look)
        self._deploy = scene.deploy  # else it is tried again

    def _steer(self, scene: Scene, look: Look, now: float) -> None:
        assert self.choice is not None
        chosen = look.of(scene.chosen)
        self._steered = self.choice.steering.steer(look, chosen)
        if self._steered is Steered.DONE:
            self._passed = frozenset(scene.leaving)
            if chosen != self._chosen:
                self._chosen = chosen
                self._vigil = None
            if scene.leaving and self._vigil is None:
                self._vigil = Vigil(self.group.clients, now)
        elif not self._chosen & look.of(scene.living):
            self._passed = frozenset()  # whoever is left may get connections

    def _end(self, look: Look) -> None:
        assert self.choice is not None
        try:
            self._is_at_work = self._is_ending = not self.choice.steering.let_go(look)
        except OSError:
            self._is_at_work = self._is_ending = False
            raise
        if not self._is_at_work:
            self._sockets = self.group.count()

    def _nudge(self, scene: Scene, look: Look) -> None:
        """Some kernels wake nobody for a connection that migrates, but they do for a new one."""
        self._nudges -= 1
        if look.waiting(scene.chosen):
            self.group.connect().close()
