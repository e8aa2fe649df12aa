"""Tasks that take long: a deploy starts new workers at once, and old ones finish what they are at.

`grace` is how long that may take. `sengu reload` returns when the new ones are ready.
"""

import time

import sengu


class LongTask(sengu.Worker):
    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            self.log.info("task %d begins", number)
            self.work(seconds=self.config.get("seconds", 60))
            self.log.info("task %d is done", number)

    def work(self, seconds: float) -> None:
        """It does not look at `self.stopping`: half a task is of no use."""
        time.sleep(seconds)


if __name__ == "__main__":
    sengu.run(LongTask, workers=2, grace="10m")
