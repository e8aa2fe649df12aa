"""How a worker class runs in a worker process, by its kind. Imported by `engine`."""

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Callable
from typing import Any

from sengu.model.work import WorkKind, WorkOptions
from sengu.work import spawn
from sengu.work.api import Worker
from sengu.work.life import Attendant, Beat, Call, Tending, Worn
from sengu.worker.runtime import Runtime


class Cast:
    """The workers of one process, made and told who they are; `make(number)` makes one."""

    def __init__(
        self, runtime: Runtime, make: Callable[[int], Worker], count: int, tending: Tending
    ) -> None:
        self.runtime = runtime
        self._tending = tending
        self.beats = [Beat(lane) for lane in runtime.board.lanes[:count]]
        self.workers = [make(number) for number in range(count)]
        worn = Worn(runtime.worn)
        for worker, beat in zip(self.workers, self.beats, strict=True):
            worker._beat, worker._worn = beat, worn
            worker._obituaries, worker._lanes = runtime.obituaries, runtime.board.lanes[count:]
            runtime.on_stop(worker.stopping.set)

    def attend(self, call: Call) -> Attendant:
        attendant = Attendant(self.runtime, self.workers, self.beats, call, self._tending)
        attendant.start()
        return attendant


def run(cast: Cast, options: WorkOptions) -> None:
    """Until all of its workers have ended. Raises what a worker of kind process or async does."""
    match options.kind:
        case WorkKind.ASYNC:
            asyncio.run(_run_async(cast))
        case WorkKind.THREAD:
            _run_threads(cast, options.restart_seconds)
        case WorkKind.SPAWN:
            _run_program(cast, options.command_pipe)
        case WorkKind.EMBEDDED if inspect.iscoroutinefunction(cast.workers[0].run):
            asyncio.run(_run_async(cast))
        case WorkKind.EMBEDDED | WorkKind.PROCESS:
            _run_one(cast)


def _run_one(cast: Cast) -> None:
    (worker,) = cast.workers
    worker.setup()
    attendant = cast.attend(_call)
    cast.runtime.ready()
    try:
        worker.run()
    finally:
        attendant.await_told()
        worker.teardown()


def _run_program(cast: Cast, has_pipe: bool) -> None:
    (worker,) = cast.workers
    worker.setup()
    attendant = cast.attend(_call)
    try:
        code = spawn.run(worker, cast.runtime, has_pipe)
    finally:
        attendant.await_told()
        worker.teardown()
    spawn.end_as(code)


def _call(method: Callable[[], object]) -> None:
    method()


async def _run_async(cast: Cast) -> None:
    (worker,) = cast.workers
    await _maybe(worker.setup())
    loop = asyncio.get_running_loop()
    calls: list[concurrent.futures.Future[None]] = []

    def call(method: Callable[[], Any]) -> None:
        async def finish() -> None:
            try:
                await _maybe(method())
            except Exception:  # the user's
                worker.log.exception("%s() failed", method.__name__)

        calls[:] = [begun for begun in calls if not begun.done()]
        calls.append(asyncio.run_coroutine_threadsafe(finish(), loop))

    async def after(told: Callable[[], None]) -> None:
        await asyncio.to_thread(told)
        for begun in tuple(calls):
            await asyncio.wrap_future(begun)

    attendant = cast.attend(call)
    cast.runtime.ready()
    try:
        await _maybe(worker.run())
    finally:
        try:
            await after(attendant.await_told)
            await _maybe(worker.teardown())
        finally:
            await after(attendant.end)  # who calls later would find the loop closed


async def _maybe(result: Any) -> None:
    if inspect.isawaitable(result):
        await result


def _run_threads(cast: Cast, restart_seconds: float) -> None:
    for worker in cast.workers:
        worker.setup()
    attendant = cast.attend(_call)
    threads = [
        threading.Thread(
            target=_run_in_thread, args=(worker, restart_seconds), name=f"worker-{worker.slot}"
        )
        for worker in cast.workers
    ]
    for thread in threads:
        thread.start()
    cast.runtime.ready()
    for thread in threads:
        thread.join()
    attendant.await_told()
    for worker in cast.workers:
        worker.teardown()


def _run_in_thread(worker: Worker, restart_seconds: float) -> None:
    """A worker that fails is started again in its thread; the others go on."""
    while not worker.stopping.is_set():
        try:
            worker.run()
        except Exception:  # the user's
            worker.log.exception("run() failed; it is called again in %g s", restart_seconds)
        if not worker.stopping.wait(restart_seconds):
            worker.log.warning("run() is called again")
