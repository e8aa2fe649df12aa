"""What the verbs' click commands have in common: options made from settings, help in groups.

Imported by the verbs.
"""

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from sengu.cli.exits import Exit
from sengu.config import kinds
from sengu.config.setting import Setting

_EXIT_CODES_OF_ALL = (Exit.OK, Exit.FAILED, Exit.USAGE, Exit.NOT_RUNNING)
_OTHER_GROUP = "Options"


class GroupedOption(click.Option):
    """An option with the heading under which help shows it."""

    def __init__(self, *args: Any, group: str = _OTHER_GROUP, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.group = group


class Verb(click.Command):
    """A command whose help has its options in groups, then examples, then its exit codes."""

    def __init__(
        self,
        *args: Any,
        examples: Iterable[tuple[str, str]] = (),
        exits: Iterable[Exit] = _EXIT_CODES_OF_ALL,
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        self.examples = tuple(examples)
        self.exits = tuple(exits)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            # An argument stands in the usage line, and the verb's own words explain it.
            is_option = isinstance(parameter, click.Option)
            record = parameter.get_help_record(ctx) if is_option else None
            if record is not None:
                group = getattr(parameter, "group", _OTHER_GROUP)
                groups.setdefault(group, []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records, col_max=26)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for line, meaning in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
                    formatter.indent()
                    formatter.write_text(meaning)
                    formatter.dedent()
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), code.meaning) for code in self.exits])


def setting_option(setting: Setting[Any]) -> GroupedOption:
    """The click option of a setting. Its value is text; `config` parses it, so that there is one
    place that knows how values are spelled."""
    group = setting.group.value
    if setting.is_switch:
        return GroupedOption(setting.spellings, is_flag=True, group=group, help=_help(setting))
    return GroupedOption(
        setting.spellings,
        metavar=setting.placeholder,
        multiple=setting.repeatable,
        group=group,
        help=_help(setting),
        shell_complete=_completer(setting.kind),
    )


def given_texts(settings: Iterable[Setting[Any]], given: dict[str, Any]) -> dict[str, list[str]]:
    """What click has read, by setting's name, as the texts that `config` parses."""
    texts: dict[str, list[str]] = {}
    for setting in settings:
        value = given.get(setting.name.replace("-", "_"))
        if setting.is_switch:
            texts[setting.name] = ["1"] if value else []
        elif setting.repeatable:
            texts[setting.name] = list(value or ())
        else:
            texts[setting.name] = [] if value is None else [value]
    return texts


def duration_option(flag: str, help_text: str, **attributes: Any) -> Callable[[Any], Any]:
    """An option that takes a duration as the settings do."""

    def parse(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
        return None if text is None else kinds.parse_positive_duration(flag, text)

    return click.option(flag, metavar="SECONDS", callback=parse, help=help_text, **attributes)


def _help(setting: Setting[Any]) -> str:
    notes = []
    if setting.describe_default():
        notes.append(f"default: {setting.describe_default()}")
    if setting.env:
        notes.append(f"environment: {setting.env}")
    return f"{setting.help}  [{'; '.join(notes)}]" if notes else setting.help


def _completer(kind: kinds.Kind) -> Callable[..., list[CompletionItem]] | None:
    if kind.completes:

        def complete(_ctx: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
            return [CompletionItem(word) for word in kind.completes if word.startswith(incomplete)]

        return complete
    if kind in (kinds.FILE, kinds.CONFIG, kinds.DIRECTORY, kinds.SOCKET_PATH):
        item_type = "dir" if kind is kinds.DIRECTORY else "file"
        return lambda _ctx, _parameter, incomplete: [CompletionItem(incomplete, type=item_type)]
    return None
