"""What dies or stalls is replaced: workers by the server, the server by the supervisor.

Nothing has to be enabled. A worker that calls `heartbeat` promises to go on doing so; one that does
not is replaced after `heartbeat_timeout`, and the log has the place where it was stuck.
"""

import time

import sengu


class Stalling(sengu.Worker):
    def run(self) -> None:
        for number in range(10):
            self.heartbeat()
            self.log.info("awesome work %d", number)
            if self.stopping.wait(0.2):
                return
        self.wait_for_nobody()

    def wait_for_nobody(self) -> None:
        time.sleep(86_400)


if __name__ == "__main__":
    sengu.run(Stalling, heartbeat_timeout=2)
