"""The past: what is to be known of an instance beyond what the planner observes.

It is learnt from facts, so a server that follows another learns it from the journal. Imported by
`server.service` and by `server.memory`, which keeps it.
"""

from typing import TypeVar

import msgspec

from sengu.control import api
from sengu.model import events as ev
from sengu.posix import clock
from sengu.server.core import Turn

Answer = TypeVar("Answer")

_TOKENS = 64  # of so many requests the answer is known when it is asked for again


class Past(msgspec.Struct):
    """`started_at` is UNIX time. `upgrading`: an upgrade was asked for and is not over yet."""

    started_at: float = msgspec.field(default_factory=clock.wall)
    last_deploy: api.PastDeploy | None = None
    servers: int = 1
    adopted: api.AdoptionStatus | None = None
    deploys: dict[str, api.ReloadAccepted] = {}
    upgrades: dict[str, api.UpgradeAccepted] = {}
    upgrading: bool = False
    inquiries: dict[str, api.ConfigureAccepted] = {}
    last_configured: api.ConfigureOutcome | None = None

    def restore(self, known: "Past") -> None:
        """Know what another has known."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(known, name))

    def learn(self, turn: Turn, last_event: int) -> None:
        """Take in a fact; `last_event` is the number of the last event that people were told."""
        self.started_at = min(self.started_at, turn.wall)  # of the first fact, whoever learns it
        self.last_configured = outcome_of(turn) or self.last_configured
        match turn.fact:
            case ev.DeployRequested(token=token) if token:
                # The event itself has been told before us, and its waiter wants to hear it too.
                answer = api.ReloadAccepted(turn.after.last_generation, last_event - 1)
                _remember(self.deploys, token, answer)
            case ev.DeployConcluded(generation, outcome, reason):
                self.last_deploy = api.PastDeploy(generation, outcome, reason, turn.wall)
            case ev.ServerAdopted(_, workers, ended, unwanted, missing):
                self.servers += 1
                self.adopted = api.AdoptionStatus(turn.wall, workers, ended, unwanted, missing)
            case ev.UpgradeRequested(token=token):
                self.upgrading = True
                if token:
                    _remember(self.upgrades, token, api.UpgradeAccepted(last_event - 1))
            case ev.ConfigureRequested(token=token) if token:
                accepted = api.ConfigureAccepted(turn.after.inquiries, last_event - 1)
                _remember(self.inquiries, token, accepted)
            case ev.UpgradeFailed() | ev.Upgraded():
                self.upgrading = False
            case _:
                pass


def _remember(answers: dict[str, Answer], token: str, answer: Answer) -> None:
    answers[token] = answer
    while len(answers) > _TOKENS:
        del answers[next(iter(answers))]


def outcome_of(turn: Turn) -> api.ConfigureOutcome | None:
    """What has become of an inquiry, if it is over now."""
    match turn.fact:
        case ev.Configured(number, is_new, inquiry=inquiry) as fact if inquiry:
            return api.ConfigureOutcome(
                inquiry,
                number,
                is_new=is_new,
                taken=fact.taken,
                waiting=fact.waiting,
                overridden=fact.overridden,
            )
        case ev.ConfigureFailed(number, inquiry, problem, details):
            return api.ConfigureOutcome(inquiry, number, problem, details)
        case ev.GenerationFailed(number, problem, details):
            pass
        case ev.GenerationRetired(number):
            problem, details = "it has ended before; the next one has read the configuration", ""
        case _:
            return None
    generation = turn.before.generations.get(number)
    if generation is None or generation.inquiry is None:
        return None
    return api.ConfigureOutcome(generation.inquiry.number, number, problem, details)
