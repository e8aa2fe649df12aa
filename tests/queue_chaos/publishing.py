"""The publisher of a run."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.queue_chaos.record import Batch
from tests.support import Output, environment

_HERE = Path(__file__).parent
_QUEUE = "numbers"
_BATCH = 100
_PATIENCE_SECONDS = 20.0


class Publishing:
    """The publisher, a process of its own. `batches` are those that are confirmed."""

    def __init__(self, env: Mapping[str, str], messages: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "publisher.py", _QUEUE, str(messages), str(_BATCH)],
            cwd=_HERE,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        self._output = Output(self._process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._output.join(_PATIENCE_SECONDS)

    @property
    def confirmed(self) -> int:
        return len(self._output.lines) * _BATCH

    @property
    def batches(self) -> list[Batch]:
        """Raises AssertionError."""
        batches = []
        for line in self._output.lines:
            first, end, *times = line.split(" ")
            assert len(times) == 2, self._output
            batches.append(Batch(int(first), int(end), *map(float, times)))
        return batches
