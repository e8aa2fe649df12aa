"""Writes docs/reference.md from what is declared once in the code: settings and exit codes.

Run by `make docs`; `tests/unit/test_reference.py` sees that the committed page is current.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from sengu.cli.exits import Exit
from sengu.config.setting import Effect, Setting
from sengu.config.settings import application, common, consume, serve, start, work
from sengu.config.tuning import BY_DEPLOY, LIVE

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"

_HEAD = """\
# Reference

This page is written by `make docs` from `src/sengu/config/settings`; change it there.

A duration is in seconds: `5`, `0.5`; or has a unit: `500ms`, `2m`, `1h`, `1d`. A size is in bytes:
`8190`; or has a unit: `64k`, `10m`, `1g`. A signal is a name, `TERM` or `SIGTERM`, or a number. An
option beats its environment variable, and a file of that name in `--envdir` beats both.
"""


def _without_shared(settings: Iterable[Setting[Any]]) -> list[Setting[Any]]:
    shared = {setting.name for setting in (*common.SETTINGS, *application.SETTINGS)}
    return [setting for setting in settings if setting.name not in shared]


# Heading, what comes under it, and the settings: a reader of one verb's needs two chapters.
_CHAPTERS = (
    (
        "Settings of `sengu serve`",
        "For Python web applications. Those that it shares with others are below.",
        _without_shared(serve.SETTINGS),
    ),
    (
        "Settings of `sengu start`",
        "For any program. Those that it shares with others are below.",
        _without_shared(start.SETTINGS),
    ),
    (
        "Settings of `sengu work`",
        "For worker classes. Those that it shares with others are below.",
        _without_shared(work.SETTINGS),
    ),
    (
        "Settings of `sengu consume`",
        "For queue consumers. Those that it shares with others are below.",
        _without_shared(consume.SETTINGS),
    ),
    (
        "Settings of `sengu serve`, `sengu work` and `sengu consume`",
        "For Python code that sengu loads.",
        application.SETTINGS,
    ),
    ("Settings of all four", "For any service.", common.SETTINGS),
)

_EFFECTS = {
    Effect.LIVE: "at once, without replacing a worker",
    Effect.DEPLOY: "with the next deploy, when it comes from a file in `--envdir`",
    Effect.RESTART: "when the instance is started anew",
}

_EXITS_HEAD = """\
## Exit codes

The same for all verbs.

| code | meaning |
|---:|---|
"""


def page() -> str:
    """The whole page, as it is to be in the file."""
    return "\n".join([_HEAD, *_chapters(), _exits()])


def _chapters() -> Iterator[str]:
    for heading, introduction, settings in _CHAPTERS:
        yield f"## {heading}\n\n{introduction}\n"
        for group, members in groupby(settings, key=lambda setting: setting.group):
            yield f"### {group.value}\n"
            yield from map(_entry, members)


def _entry(setting: Setting[Any]) -> str:
    spelling = f"{', '.join(setting.spellings)} {setting.placeholder}".rstrip()
    facts = [f"takes effect {_EFFECTS[setting.effect]}"]
    if setting in LIVE and setting.effect is not Effect.LIVE:
        facts.append("at once in the configuration of `sengu work`")
    if setting in BY_DEPLOY:
        facts.append("by a deploy in the configuration of `sengu work`")
    if setting.describe_default():
        facts.insert(0, f"default: {_escape(setting.describe_default())}")
    if setting.env:
        facts.insert(0, f"environment: `{setting.env}`")
    return f"**`{spelling}`**\\\n{_escape(setting.help)}\\\n*{'; '.join(facts)}*\n"


def _exits() -> str:
    return _EXITS_HEAD + "".join(f"| {int(code)} | {code.meaning} |\n" for code in Exit)


def _escape(text: str) -> str:
    """Words that Markdown would take for markup."""
    return text.replace("*", r"\*").replace("_", r"\_").replace("[", r"\[")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
