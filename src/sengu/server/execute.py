"""Carries the planner's actions out, each by a few lines, and answers with the fact it made."""

import os
from typing import assert_never

from sengu.config.envdir import read_envdir
from sengu.config.pacing import pacing_from
from sengu.errors import UsageError
from sengu.model import actions as do
from sengu.model import events as ev
from sengu.model.actions import AnyAction
from sengu.model.service import ServiceSpec
from sengu.planner.reduce import Fact
from sengu.server.crew import Crew
from sengu.server.forkservers import ForkServers, Plan
from sengu.server.stage import Stage


class Executor:
    """Turns actions into system calls."""

    def __init__(
        self,
        spec: ServiceSpec,
        crew: Crew,
        fork_servers: ForkServers,
        stage: Stage,
        env_dir: str | None,
    ) -> None:
        self._spec = spec
        self._crew = crew
        self._fork_servers = fork_servers
        self._stage = stage
        self._env_dir = env_dir
        self._environments: dict[int, dict[str, str]] = {}

    def execute(self, action: AnyAction) -> Fact:
        match action:
            case do.RequestDeploy():
                return ev.DeployRequested(action.by)
            case do.PrepareGeneration():
                return self._prepare(action.generation)
            case do.AbandonPreparation():
                words = self._fork_servers.end(action.generation)
                return ev.GenerationFailed(action.generation, action.reason, words)
            case do.RetireGeneration():
                self._environments.pop(action.generation, None)
                self._fork_servers.end(action.generation)
                return ev.GenerationRetired(action.generation)
            case do.StartWorker():
                return self._start(action)
            case do.DeclareReady():
                return ev.WorkerReady(action.worker, action.reason)
            case do.StopWorker():
                return self._stop(action)
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

    def _prepare(self, generation: int) -> Fact:
        """Read the environment anew, and bind anew what has lost its socket file.

        An application is then loaded by the generation's fork server, which takes its time.
        """
        for line in self._stage.listeners.heal():
            self._crew.warn(line)
        environment = dict(os.environ)
        try:
            if self._env_dir is not None:
                environment.update(read_envdir(self._env_dir))
            pacing = pacing_from(environment)
        except OSError as error:
            return ev.GenerationFailed(generation, f"cannot read {self._env_dir}: {error.strerror}")
        except UsageError as error:
            return ev.GenerationFailed(generation, str(error))
        self._environments[generation] = environment
        application = self._spec.application
        if application is None:
            return ev.GenerationPrepared(generation, pacing)
        try:
            plan = Plan(self._spec.name, generation, application, environment, pacing)
            self._fork_servers.start(plan)
        except OSError as error:
            problem = f"cannot start a fork server: {error.strerror}"
            return ev.GenerationFailed(generation, problem)
        return ev.GenerationPreparing(generation, pacing)

    def _start(self, action: do.StartWorker) -> Fact:
        try:
            if self._spec.application is not None:
                self._crew.request(action, self._fork_servers)
                return ev.WorkerRequested(
                    action.worker, action.generation, action.slot, action.reason
                )
            pid = self._crew.start(action, self._environments[action.generation])
        except OSError as error:
            problem = f"cannot start a process: {error.strerror}"
            return ev.StartFailed(action.generation, action.slot, problem)
        return ev.WorkerStarted(action.worker, action.generation, action.slot, pid, action.reason)

    def _stop(self, action: do.StopWorker) -> Fact:
        problem = self._crew.problem_of(action.worker) if action.failed else ""
        reason = f"{action.reason} ({problem})" if problem else action.reason
        words = self._crew.last_words(action.worker) if action.failed else ""
        self._crew.signal(action.worker, action.signal)
        return ev.WorkerStopping(
            action.worker, action.signal, action.kill_at, reason, action.failed, words
        )
