"""The configuration changes while workers run: edit config.toml, then `sengu configure`.

`workers` and `log_level` in the file are settings of sengu's own, and hold at once too. With
`signals="serverengine"` USR2 does what `sengu configure` does.
"""

from pathlib import Path

import sengu


class Configured(sengu.Worker):
    def setup(self) -> None:
        self.reload()

    def reload(self) -> None:
        self.message = self.config.get("message", "awesome work")
        self.pause = self.config.get("pause", 1.0)

    def run(self) -> None:
        while not self.stopping.wait(self.pause):
            self.log.info(self.message)


if __name__ == "__main__":
    sengu.run(Configured, config=Path(__file__).with_name("config.toml"), signals="serverengine")
