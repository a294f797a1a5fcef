"""The table of commands, and the one place that turns errors into lines and exit codes."""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import traceback
from importlib import import_module

import click

from hilum import __version__, machine
from hilum.cli.display import plain
from hilum.errors import HilumError, memory_full, missing_extra, nearest

# name: (where it is, one line for the list). Nothing is imported before it is called.
COMMANDS = {
    "demo": ("hilum.cli.demo:demo", "The whole way on made-up films, under two minutes."),
    "predict": ("hilum.cli.predict:predict", "Answer films with a model."),
    "index": ("hilum.cli.index:index", "Folder, table or archive to a manifest of films."),
    "audit": ("hilum.cli.audit:audit", "What is wrong with a data set, before a model learns it."),
    "train": ("hilum.cli.train:train", "Train a model by a recipe, or resume a run."),
    "evaluate": ("hilum.cli.evaluate:evaluate", "Metrics, figures and a report for a model."),
    "compare": ("hilum.cli.compare:compare", "The same training in several places, timed."),
    "reproduce": ("hilum.cli.reproduce:reproduce", "The paper from start to end, ours beside it."),
    "get": ("hilum.cli.get:get", "Fetch a published data set."),
    "doctor": ("hilum.cli.doctor:doctor", "What is here, and what is missing."),
}


class Commands(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no such command: {args[0]}. {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 a defect of hilum's, 2 wrong usage, 3 refused, "
    "4 some films unreadable, 130 interrupted.  Not a medical device.",
)
@click.version_option(__version__, message="hilum %(version)s")
def hilum() -> None:
    """From a folder of chest X-rays to a pneumonia classifier, and an answer for a film.

    \b
    Examples:
      hilum predict film.jpg
      hilum train films/ --out run
      hilum evaluate films/ --model run
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the code that the docs promise."""
    code = run(sys.argv[1:] if arguments is None else arguments)
    if code == 130:  # whoever interrupts twice would only see Python's threads complain
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if machine.launched():
        # Threads of a group, above all of one that broke, may abort while Python takes itself down,
        # and the launcher would see SIGABRT in place of the code.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    gc.freeze()  # else Python looks once more through all that torch has brought: half a second
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    # Before numpy loads, so that its maths library takes the granted cores, not the host's.
    machine.default_threads()
    try:
        if "HILUM_KERNELS" in os.environ:  # the library is slow to import for nothing
            from hilum.native import library

            library.check_switch()
        code = hilum.main(args=arguments, prog_name="hilum", standalone_mode=False)
        sys.stdout.flush()  # while a reader that has gone can still be answered
        return code if isinstance(code, int) else 0
    except HilumError as error:
        return _say(plain(str(error)), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        return _say(error.format_message().strip() + _where(error), 2)
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__, EOFError):  # click takes the end of any file for Ctrl-C
            return _defect(error.__cause__)
        return _say("interrupted.", 130)
    except (BrokenPipeError, SystemExit) as error:  # the latter is how click ends at the former
        if _nobody_reads():
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python would flush at its end
            return 0
        if isinstance(error, SystemExit):
            raise
        return _defect(error)
    except Exception as error:
        extra = missing_extra(error) if isinstance(error, ModuleNotFoundError) else None
        told = extra or memory_full(error)
        if told is not None:
            return _say(plain(str(told)), told.exit_code)
        return _defect(error)


def _nobody_reads() -> bool:
    """Whether the reader of stdout (head, less) has gone; then nothing is wrong."""
    stdout = select.poll()
    stdout.register(1, 0)
    return any(happened & (select.POLLERR | select.POLLHUP) for _, happened in stdout.poll(0))


def _where(error: click.ClickException) -> str:
    """`` See hilum COMMAND --help.`` where the error is a command's."""
    ctx: click.Context | None = getattr(error, "ctx", None)
    known = ctx is not None and ctx.info_name in COMMANDS
    return f" See hilum {ctx.info_name} --help." if ctx is not None and known else ""


def _defect(error: BaseException) -> int:
    traceback.print_exception(error)
    return _say(
        "this is a defect of hilum's. Please report it with the lines above and the output "
        "of hilum doctor.",
        1,
    )


def _say(text: str, code: int) -> int:
    click.echo(f"hilum: {text[:1].lower() + text[1:] if text[1:2].islower() else text}", err=True)
    return code
