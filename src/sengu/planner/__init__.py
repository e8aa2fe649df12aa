"""Pure verbs: `reduce` takes facts in, `plan` says what to do. Neither touches the system.

The server calls `reduce` for every event and then `plan` until that has nothing left to say. Each
policy has a file of its own; `plan` composes them.
"""

from sengu.planner.plan import Plan, plan
from sengu.planner.reduce import initial, reduce

__all__ = ["Plan", "initial", "plan", "reduce"]
