"""The same class four times, in processes of their own; `kind="thread"` has four threads in one."""

import sengu


class Awesome(sengu.Worker):
    def run(self) -> None:
        while not self.stopping.wait(1.0):
            self.log.info("awesome work in slot %d", self.slot)


if __name__ == "__main__":
    sengu.run(Awesome, workers=4)
