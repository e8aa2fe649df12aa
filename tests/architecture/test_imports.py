"""Applies the rules of `rules.py` to every module of the package."""

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
