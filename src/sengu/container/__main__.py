"""`python -P -m sengu.container run|sweep ORDER`: see `container.order` for what ORDER is."""

import os
import sys

from sengu.container.engine import Engine
from sengu.container.identity import Identity
from sengu.container.order import Order, Sweep, read
from sengu.container.runner import Runner, block_signals
from sengu.container.sweep import sweep


def main(verb: str, text: str) -> int:
    """Returns the exit code."""
    if verb == "sweep":
        block_signals(())
        chore = read(Sweep, text)
        return sweep(chore, Engine(chore.engine, os.environ))
    order = read(Order, text)
    block_signals(order.stop_signals)
    return Runner(order, Identity.of_process(os.environ)).run(os.environ)


sys.exit(main(*sys.argv[1:]))
