"""Workers that are programs, of any language, and are told what to do by lines on their stdin.

Without `command_pipe` they are told by signals: TERM, QUIT, and `reload_signal`.
"""

import json
import sys

import sengu

PROGRAM = """
import json, os, sys, threading

config = json.loads(os.environ["AWESOME_CONFIG"])
stopped = threading.Event()

def listen():
    for line in sys.stdin:
        print("told:", line.strip(), flush=True)
        if line.strip() in ("GRACEFUL_STOP", "IMMEDIATE_STOP"):
            stopped.set()

threading.Thread(target=listen, daemon=True).start()
while not stopped.wait(1.0):
    print(config["message"], "in slot", os.environ["SENGU_SLOT"], flush=True)
"""


class Program(sengu.Worker):
    def command(self) -> list[str]:
        config = json.dumps(dict(self.config))
        return ["/usr/bin/env", f"AWESOME_CONFIG={config}", sys.executable, "-c", PROGRAM]


if __name__ == "__main__":
    config = {"message": "awesome work"}
    sengu.run(Program, kind="spawn", command_pipe=True, workers=2, config=config)
