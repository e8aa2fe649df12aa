"""The least that a worker is: a class with `run`. It is started again if it dies."""

import sengu


class Awesome(sengu.Worker):
    def run(self) -> None:
        while not self.stopping.wait(1.0):
            self.log.info("awesome work")


if __name__ == "__main__":
    sengu.run(Awesome, daemonize=True, log="myserver.log", pid_file="myserver.pid")
