"""Writes docs/reference.md from what is declared once in the code: settings and exit codes.

Run by `make docs`; `tests/unit/test_reference.py` sees that the committed page is current.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sengu.cli.exits import Exit
from sengu.config.setting import Effect, Group, Setting
from sengu.config.settings import SETTINGS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"

_HEAD = """\
# Reference

This page is written by `make docs` from `src/sengu/config/settings.py`; change it there.

## Settings of `sengu start`

A duration is in seconds: `5`, `0.5`; or has a unit: `500ms`, `2m`, `1h`. A signal is a name,
`TERM` or `SIGTERM`, or a number. An option beats its environment variable, and a file of that name
in `--envdir` beats both.
"""

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
    return "\n".join([_HEAD, *_settings(), _exits()])


def _settings() -> Iterator[str]:
    for group in Group:
        yield f"### {group.value}\n"
        for setting in SETTINGS:
            if setting.group is group:
                yield _entry(setting)


def _entry(setting: Setting[Any]) -> str:
    spelling = setting.flag if setting.is_switch else f"{setting.flag} {setting.placeholder}"
    facts = [f"takes effect {_EFFECTS[setting.effect]}"]
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
