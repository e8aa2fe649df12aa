"""`sengu completion`: the script that teaches a shell to complete sengu's words."""

import click
from click.shell_completion import get_completion_class

from sengu.cli.exits import Exit
from sengu.cli.options import Verb


@click.command(
    "completion",
    cls=Verb,
    exits=(Exit.OK, Exit.USAGE),
    examples=(
        ('eval "$(sengu completion bash)"', "In ~/.bashrc."),
        ('eval "$(sengu completion zsh)"', "In ~/.zshrc, after compinit."),
        ("sengu completion fish > ~/.config/fish/completions/sengu.fish", "Once."),
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print the completion script for a shell. It completes verbs, options, instance names."""
    from sengu.cli.main import sengu

    completer = get_completion_class(shell)
    assert completer is not None  # click has one for each of the three
    click.echo(completer(sengu, {}, "sengu", "_SENGU_COMPLETE").source())
    return Exit.OK
