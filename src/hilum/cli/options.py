"""Options that several commands share, each defined once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from hilum.cli.display import Terminal

_BESIDE_RESUME = {"resume", "hide_names", "quiet", "as_json"}

Command = TypeVar("Command", bound=Callable[..., Any])


def _hide_names(ctx: click.Context, _: click.Parameter, hide: bool) -> None:
    from hilum.names import hiding

    ctx.with_resource(hiding(hide))  # as long as the command runs


hide_names = click.option(
    "--hide-names",
    is_flag=True,
    expose_value=False,
    callback=_hide_names,
    help="Call films by a keyed hash: results and messages show no path and no file name.",
)


def data_options(draw: bool) -> Callable[[Command], Command]:
    """The options of ``hilum index`` for every command that takes DATA.

    Parameters
    ----------
    draw : whether the command may draw parts (``evaluate`` must not)
    """
    options = [
        hide_names,
        click.option(
            "--kind",
            metavar="KIND",
            help="What the source is, where its content does not tell: folders, table, nih, rsna, "
            "openi, dicom or medmnist.",
        ),
        click.option("--positive", metavar="NAME", help="The class that counts as positive."),
        click.option("--task", help="The question: pneumonia, or one that the kind offers."),
        click.option(
            "--images", multiple=True, metavar="FOLDER", help="Where a label table's films are."
        ),
        click.option(
            "--allow-leak", is_flag=True, help="Go on with patients in two parts; reports say so."
        ),
    ]
    if draw:
        options += [
            click.option(
                "--validation",
                type=click.FloatRange(0, 0.9),
                default=0.15,
                show_default=True,
                help="Share of the patients for validation.",
            ),
            click.option(
                "--test",
                type=click.FloatRange(0, 0.9),
                default=0.15,
                show_default=True,
                help="Share for a test part, where the data has none.",
            ),
        ]
    return _stacked(options)


def _stacked(options: list[Any]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


common = _stacked(
    [
        click.option("--quiet", "-q", is_flag=True, help="Results and errors only."),
        click.option("--json", "as_json", is_flag=True, help="Machine-readable on stdout."),
    ]
)
out = click.option(
    "--out", "-o", type=click.Path(), help="Where results go (default: a dated folder here)."
)
model = click.option(
    "--model",
    type=click.Path(),
    metavar="MODEL",
    help="A bundle or a run folder (default: the model that ships with hilum).",
)
allow_modified = click.option(
    "--allow-modified", is_flag=True, help="Use a model that was changed after it was sealed."
)


def once(way_on: str) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], str | None]:
    """For an option with ``multiple``: its value, refused where it was given twice, since the last
    one would win in silence.

    Parameters
    ----------
    way_on : what to do, as a sentence
    """

    def only(_: click.Context, option: click.Parameter, given: tuple[str, ...]) -> str | None:
        if len(given) > 1:
            raise click.UsageError(f"{option.opts[0]} is given {len(given)} times. {way_on}")
        return given[0] if given else None

    return only


def nothing_beside_resume(what: str) -> None:
    """Refuse what was given beside ``--resume``: a run goes on as it was begun.

    Parameters
    ----------
    what : it takes, for people
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if name in _BESIDE_RESUME or not given or context.params.get(name) == ():
            continue
        called = max(parameter.opts, key=len) if parameter.opts[0].startswith("-") else "DATA"
        raise click.UsageError(
            f"--resume takes {what} and nothing else, not {called}: it goes on as it was begun."
        )


def terminal(quiet: bool) -> Terminal:
    """The reporter for a command."""
    return Terminal(quiet=quiet)
