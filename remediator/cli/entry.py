"""The top of the command line: finds commands, turns errors into one line and an exit code."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import click

from remediator.exit_codes import MEANINGS, ExitCode

T = TypeVar("T")

# Command -> its module, and the attribute there. ``demo`` needs the simulated cluster, which a
# slim image may leave out.
_COMMANDS = {
    "run": ("remediator.cli.run", "run"),
    "probe": ("remediator.cli.probe", "probe"),
    "demo": ("remediator.cli.demo", "demo"),
    "health": ("remediator.cli.health", "health"),
    "decisions": ("remediator.cli.decisions", "decisions"),
    "budgets": ("remediator.cli.budgets", "budgets"),
    "pacing": ("remediator.cli.pacing", "pacing"),
    "pause": ("remediator.cli.orders", "pause"),
    "resume": ("remediator.cli.orders", "resume"),
    "approve": ("remediator.cli.orders", "approve"),
    "deny": ("remediator.cli.orders", "deny"),
    "retry": ("remediator.cli.orders", "retry"),
    "cancel": ("remediator.cli.orders", "cancel"),
    "drain": ("remediator.cli.drain", "drain"),
    "undrain": ("remediator.cli.drain", "undrain"),
    "confirm-off": ("remediator.cli.fence", "confirm_off"),
    "fence": ("remediator.cli.fence", "fence"),
    "release-gates": ("remediator.cli.release_gates", "release_gates"),
    "policy": ("remediator.cli.policies", "policy"),
    "simulate": ("remediator.cli.simulate", "simulate"),
    "config": ("remediator.cli.configuration", "config"),
    "schema": ("remediator.cli.schema", "schema"),
    "version": ("remediator.cli.version", "version"),
}


class CommandError(click.ClickException):
    """Ends a command with one line on stderr and this exit code."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the commands that are installed, in the order in which people meet them."""
        return [name for name, (module, _) in _COMMANDS.items() if importlib.util.find_spec(module)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one command; None when there is none of that name."""
        if name not in self.list_commands(ctx):
            return None
        module, attribute = _COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


_EPILOG = "\b\nExit codes:\n" + "\n".join(
    f"  {int(code):>3}  {meaning}" for code, meaning in MEANINGS.items()
)


@click.group(
    cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
def cli() -> None:
    """Bring KubeVirt virtual machines back when a host dies: fast, never twice."""


def run_cli(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; nothing but the exit code escapes."""
    # Not cli.main: it prints an empty line on Ctrl-C and ends a broken pipe with 1.
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        with cli.make_context("remediator", given) as context:
            result = cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.UsageError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        _tell(error.format_message())
        return error.code if isinstance(error, CommandError) else ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Python would flush stdout again at exit, fail again and say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last resort; said to be ours, with its origin
        traceback.print_exc()
        _tell(f"internal error: {type(error).__name__}: {error}; please report it with the above")
        return ExitCode.INTERNAL
    return result if isinstance(result, int) else ExitCode.OK


def _tell(message: str) -> None:
    click.echo(f"remediator: {message}", err=True)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine. Ctrl-C cancels it and comes out as KeyboardInterrupt."""
    return asyncio.run(work)


def log_to_stderr() -> None:
    """Keep log lines out of a command's output; its own errors already say what is wrong."""
    from remediator import logs  # noqa: PLC0415 - structlog costs 30 ms that --help need not pay

    logs.configure(level="error", stream=sys.stderr)
