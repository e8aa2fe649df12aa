"""Carries the planner's actions out, each by a few lines, and answers with the fact it made."""

from typing import assert_never

from sengu.errors import UsageError, describe_error
from sengu.model import actions as do
from sengu.model import events as ev
from sengu.model.actions import AnyAction
from sengu.model.service import ServiceSpec
from sengu.planner.reduce import Fact
from sengu.server.cgroups import generation_key
from sengu.server.crew import Crew
from sengu.server.fork_plan import Plan
from sengu.server.groundwork import Groundwork
from sengu.server.stage import Stage


class Executor:
    """Turns actions into system calls."""

    def __init__(self, spec: ServiceSpec, crew: Crew, stage: Stage, groundwork: Groundwork) -> None:
        self._spec = spec
        self._crew = crew
        self._stage = stage
        self._steps = groundwork.steps
        self._environments = groundwork.environments
        self._fork_servers = groundwork.fork_servers
        self._configurations = groundwork.configurations

    def execute(self, action: AnyAction) -> Fact:  # noqa: PLR0912
        match action:
            case do.RequestDeploy():
                return ev.DeployRequested(action.by)
            case do.RequestStop():
                return ev.StopRequested(action.by, urgent=True, exit_code=action.exit_code)
            case do.StartStep():
                return self._steps.start(action)
            case do.StopStep():
                return self._steps.stop(action)
            case do.KillStep():
                return self._steps.kill(action)
            case do.PrepareGeneration():
                return self._prepare(action.generation, action.inquiry)
            case do.AbandonPreparation():
                words = self._fork_servers.end(action.generation)
                return ev.GenerationFailed(action.generation, action.reason, words)
            case do.AskConfiguration():
                self._fork_servers.inquire(action.generation, action.inquiry)
                return ev.ConfigureSent(action.generation, action.inquiry)
            case do.AbandonInquiry():
                self._fork_servers.end(action.generation)
                self._crew.post(ev.GenerationLost(action.generation, "it hangs"))
                return ev.ConfigureFailed(action.generation, action.inquiry, action.reason)
            case do.RetireGeneration():
                self._environments.forget(action.generation)
                self._fork_servers.end(action.generation)
                self._configurations.forget(action.generation)
                self._stage.cgroups.clear(generation_key(action.generation))
                return ev.GenerationRetired(action.generation)
            case do.StartWorker():
                return self._start(action)
            case do.DeclareReady():
                return ev.WorkerReady(action.worker, action.reason)
            case do.DrainWorker():  # the passage does, as soon as it follows
                return ev.WorkerDraining(action.worker, action.until, action.reason)
            case do.StopWorker():
                return self._stop(action)
            case do.UrgeWorker():
                self._crew.signal(action.worker, action.signal)
                return ev.WorkerUrged(action.worker, action.signal, action.reason)
            case do.KillWorker():
                self._crew.kill(action.worker)
                return ev.WorkerKilled(action.worker, action.reason)
            case do.ConcludeDeploy():
                return ev.DeployConcluded(
                    action.generation, action.outcome, action.reason, action.last_words
                )
            case do.FinishService():
                return ev.ServiceStopped(action.failure)
            case _:
                assert_never(action)

    def _prepare(self, generation: int, inquiry: int) -> Fact:
        """Read the environment anew, and bind anew what has lost its socket file.

        An application is then loaded by the generation's fork server, which takes its time.
        """
        for line in self._stage.listeners.heal():
            self._crew.warn(line)
        try:
            environment, pacing = self._environments.read(generation)
        except UsageError as error:
            return ev.GenerationFailed(generation, str(error))
        application = self._spec.application
        if application is None:
            return ev.GenerationPrepared(generation, pacing)
        try:
            tuned = self._configurations.application or application
            plan = Plan(self._spec.name, generation, tuned, environment, inquiry)
            self._fork_servers.start(plan, pacing)
        except (OSError, ValueError) as error:
            problem = f"cannot start a fork server: {describe_error(error)}"
            return ev.GenerationFailed(generation, problem)
        return ev.GenerationPreparing(generation, pacing)

    def repeat(self, action: do.StartWorker) -> None:
        """Ask once more for a worker whose process nobody has seen."""
        fact = self._start(action)
        if isinstance(fact, ev.StartFailed):
            self._crew.post(ev.WorkerExited(action.worker, f"no process: {fact.problem}"))

    def _start(self, action: do.StartWorker) -> ev.WorkerRequested | ev.StartFailed:
        try:
            if self._spec.application is not None:
                self._crew.request(action, self._fork_servers)
            else:
                self._crew.start(action, self._environments.of(action.generation))
        except (OSError, ValueError, UsageError) as error:
            problem = f"cannot start a process: {describe_error(error)}"
            return ev.StartFailed(action.generation, action.slot, problem)
        return ev.WorkerRequested(action.worker, action.generation, action.slot, action.reason)

    def _stop(self, action: do.StopWorker) -> Fact:
        problem = self._crew.problem_of(action.worker) if action.failed else ""
        reason = f"{action.reason} ({problem})" if problem else action.reason
        words = self._crew.last_words(action.worker) if action.failed else ""
        self._crew.signal(action.worker, action.signal)
        return ev.WorkerStopping(
            action.worker,
            action.signal,
            action.kill_at,
            reason,
            action.failed,
            words,
            action.urgings,
        )
