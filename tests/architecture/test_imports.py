"""Applies the rules of `rules.py` to every module of the package."""

import subprocess
import sys
from pathlib import Path

from tests.architecture import rules

SRC = Path(__file__).parents[2] / "src"


def test_every_module_keeps_the_rules_of_the_architecture() -> None:
    paths = sorted((SRC / rules.ROOT).rglob("*.py"))
    assert paths, f"no modules under {SRC}"
    violations = [
        violation
        for path in paths
        for violation in rules.check(path.relative_to(SRC).as_posix(), path.read_text())
    ]
    assert not violations, "\n" + rules.report(violations)


def test_a_server_loads_no_passage_before_it_needs_one() -> None:
    code = "import sys, sengu.server.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "sengu.server.instance" in loaded
    assert not [
        name for name in loaded if "passage." in name and not name.endswith("model.passage")
    ]
    assert "sengu.server.slot_passage" not in loaded
