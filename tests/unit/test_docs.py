"""What README and docs tell people to type is understood, and what they refer to is there."""

import json
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import click
import pytest

from sengu.cli.main import sengu
from sengu.cli.options import given_texts
from sengu.config.setting import parse_values
from sengu.config.settings import consume, serve, start, work

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
# It tells of what is yet to be built.
DESIGN = ROOT / "docs/design.md"
MANUAL = [page for page in PAGES if page != DESIGN]
SETTINGS = {
    "serve": serve.SETTINGS,
    "start": start.SETTINGS,
    "work": work.SETTINGS,
    "consume": consume.SETTINGS,
}

# Options of others that the pages name.
FOREIGN = {
    "benchmarks.md": {"--reuse-port"},
    "containers.md": {
        *(
            "--all",
            "--engine-option=--memory",
            "--env",
            "--filter",
            "--label",
            "--memory",
            "--name",
        ),
        *("--net", "--network", "--pull", "--reuse-port", "--sig-proxy", "--stop-signal"),
        *("--stop-timeout", "--storage-driver", "--threads", "--volume"),
    },
    "docker.md": {"--cpus", "--format", "--init", "--stop-timeout", "--time", "--tmpfs"},
    "doctor.md": {"--cap-add", "--security-opt", "--sysctl", "--ulimit"},
    "fastapi.md": {"--proxy-headers"},
    "from-celery.md": {
        *("--autoscale", "--concurrency", "--detach", "--logfile", "--loglevel", "--pidfile"),
        *("--max-memory-per-child", "--max-tasks-per-child", "--pool", "--queues"),
    },
    "from-gunicorn-unicorn.md": {"--preload"},
    "from-sneakers.md": {"--require"},
    "self-bound.md": {"--no-control-socket", "--reuse-port", "--sysctl"},
    "systemd.md": {"--upgrade"},
}
# The page's other columns are the options of others.
MIGRATIONS = ("from-gunicorn-unicorn.md", "server-starter.md")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_INLINE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+\.svg)\)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
_END = ("&&", "||", "|", "<", "{", "}", "&", ";", "→")


class Line(NamedTuple):
    """A command line of sengu, without its first word."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def prose(text: str) -> str:
    """The page without its blocks of code."""
    return _FENCE.sub("", text)


def command_lines(page: Path) -> Iterator[Line]:
    """All that the page has, in blocks and in its text."""
    text = page.read_text()
    for _kind, block in _FENCE.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        # Where there are prompts, the rest is answers.
        typed = [line[2:] for line in lines if line.startswith("$ ")] or lines
        for line in typed:
            yield from _in_line(page.name, line)
    for code in _INLINE.findall(prose(text)):
        if code.startswith(("sengu ", "sengu\n")):
            yield from _in_line(page.name, " ".join(code.split()))


def _in_line(page: str, line: str) -> Iterator[Line]:
    if match := re.match(r"(?:CMD|ENTRYPOINT) (\[.*\])", line):
        words = json.loads(match[1])
    else:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # words of people, in which a quotation mark has no partner
            return
    words = [word for word in words if word not in ("…", "...")]
    while any(map(_is_sengu, words)):
        first = next(number for number, word in enumerate(words) if _is_sengu(word))
        words = words[first + 1 :]
        if typed := tuple(
            takewhile(lambda word: word not in _END, words)
        ):  # else what pip installs
            yield Line(page, typed)
        words = words[words.index("&&") :] if "&&" in words else []


def _is_sengu(word: str) -> bool:
    return word.rpartition("=")[2] == "sengu" or word.endswith("bin/sengu")


LINES = sorted({line for page in MANUAL for line in command_lines(page)})


def verb(name: str) -> click.Command | None:
    return sengu.get_command(click.Context(sengu), name)


def options_of_all_verbs() -> set[str]:
    context = click.Context(sengu)
    commands = [sengu, *filter(None, map(verb, sengu.list_commands(context)))]
    groups = [one for one in commands[1:] if isinstance(one, click.Group)]
    commands += [below for group in groups for below in group.commands.values()]
    return {
        spelling
        for command in commands
        for parameter in command.get_params(click.Context(command))
        for spelling in parameter.opts
    }


def test_there_is_something_to_be_checked() -> None:
    assert len(LINES) > 50


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_command_line_of_the_pages_is_understood(line: Line) -> None:
    name, *arguments = line.words
    if name.startswith("--"):
        assert name in options_of_all_verbs()
        return
    command = verb(name)
    assert command is not None, f"there is no verb {name}"
    if not arguments or "--help" in arguments:  # only its name, perhaps
        return
    context = command.make_context(name, arguments)
    if name in SETTINGS:
        parse_values(SETTINGS[name], given_texts(SETTINGS[name], context.params))


@pytest.mark.parametrize("page", MANUAL, ids=lambda page: str(page.relative_to(ROOT)))
def test_an_option_that_a_page_names_exists(page: Path) -> None:
    known = options_of_all_verbs() | FOREIGN.get(page.name, set())
    codes = _INLINE.findall(prose(page.read_text()))
    if page.name in MIGRATIONS:
        rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
        codes = [code for row in rows for code in _INLINE.findall(row.rsplit("|", 2)[-2])]
    named = {option for code in codes for option in _OPTION.findall(code)}
    ours = {option for option in named if not option.endswith("-")}
    assert ours <= known, ours - known


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as they are made on GitHub."""
    headings = re.findall(r"^#+ (.*)$", prose(page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_what_is_there(page: Path) -> None:
    for link in _LINK.findall(prose(page.read_text())):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_to_be_found_from_the_readme() -> None:
    links = _LINK.findall((ROOT / "README.md").read_text())
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert pages <= set(links), pages - set(links)


@pytest.mark.parametrize(
    ("page", "kind", "file"),
    [
        ("nginx.md", "nginx", "nginx.conf"),
        ("docker.md", "dockerfile", "Containerfile"),
    ],
)
def test_a_page_shows_the_file_as_it_is(page: str, kind: str, file: str) -> None:
    blocks = dict(_FENCE.findall((ROOT / "docs" / page).read_text()))
    _, _, without_first_line = (ROOT / "examples/deploy" / file).read_text().partition("\n")
    assert blocks[kind] == without_first_line


def test_what_the_page_on_systemd_shows_of_the_unit_is_in_it() -> None:
    blocks = _FENCE.findall((ROOT / "docs/systemd.md").read_text())
    (shown,) = (text for kind, text in blocks if kind == "ini" and "hello:app" in text)
    unit = (ROOT / "examples/deploy/web.service").read_text().splitlines()
    assert set(shown.splitlines()) <= set(unit)
    (other,) = (text for kind, text in blocks if kind == "ini" and "Type=notify-reload" in text)
    _, _, file = (ROOT / "examples/deploy/notify-reload.conf").read_text().partition("\n")
    assert other == file


def test_each_picture_that_a_page_shows_is_one() -> None:
    shown = {page.parent / path for page in PAGES for path in _PICTURE.findall(page.read_text())}
    assert len(shown) > 1
    for picture in shown:
        assert ElementTree.parse(picture).getroot().tag.endswith("}svg")
