"""Writes docs/benchmarks.md from the results. Nothing is measured here."""

from bench.results import Result, Results, Row

_HEAD = """\
# Benchmarks

This page is written by `make bench`; what stands behind it is in `benchmarks.json`. Everything in
a table comes from one run, sengu and its peers side by side and in turns, so that what disturbs one
disturbs all. Status files, logs and sockets are in memory (tmpfs). Figures are medians, with least
and greatest in brackets. A ratio is ours over theirs: below 1 × we need less. A bar is what we have
set ourselves.

Repeat it:

```sh
make bench                                # all of it, some minutes
.venv/bin/python -m bench --quick         # does it work?
.venv/bin/python -m bench {first}{space}# one of them; the page keeps the others
```
"""


def page(results: Results, order: list[str]) -> str:
    """The page in Markdown. `order` are the names in which sections come."""
    shown = [name for name in order if name in results]
    first = shown[0] if shown else ""
    parts = [_HEAD.format(first=first, space=" " * max(1, 16 - len(first)))]
    parts += [_section(name, results[name]) for name in shown]
    return "\n".join(parts)


def _section(name: str, result: Result) -> str:
    quick = " **A quick run: it shows that the measurement works, and no more.**"
    others = result.bystanders
    busy = "" if others is None else f"; other programs used {others:.0%} of it meanwhile"
    lines = [
        f"## {result.title}",
        "",
        f"`python -m bench {name}`, {result.date}, {result.seconds:.0f} s; {result.versions}; "
        f"{result.machine}{busy}.{quick if result.is_quick else ''}",
        "",
        result.how,
        "",
        "| what | ours | theirs | ratio | bar | reached |",
        "|---|---|---|---|---|---|",
        *map(_line, result.rows),
        "",
    ]
    for chart in result.charts:
        lines += [f"![{chart.title}](img/bench-{chart.name}.svg)", ""]
    if result.notes:
        lines += [*(f"- {note}" for note in result.notes), ""]
    return "\n".join(lines)


def _line(row: Row) -> str:
    reached = {True: "yes", False: "**no**", None: ""}[row.reached]
    cells = (row.what, row.ours, row.theirs, row.ratio, row.bar, reached)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
