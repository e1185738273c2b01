"""What all commands that order something share: their options, and the way to the leader."""

from __future__ import annotations

import getpass
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from remediator.cli.entry import CommandError, log_to_stderr, run_async
from remediator.cli.source_options import SourceChoice, nats_connection
from remediator.exit_codes import ExitCode


class Giving(msgspec.Struct, frozen=True, kw_only=True):
    """Who orders something, why, and where the leader is found."""

    reason: str
    by: str | None
    nats: str
    config_file: Path | None


def order_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--reason``, ``--by``, ``--nats`` and ``--config``, given as one ``giving``."""

    def together(
        *, reason: str, by: str | None, nats: str, config_file: Path | None, **rest: Any
    ) -> Any:
        giving = Giving(reason=reason, by=by, nats=nats, config_file=config_file)
        return command(giving=giving, **rest)

    together.__name__, together.__doc__ = command.__name__, command.__doc__
    options = (
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            envvar="REMEDIATOR_CONFIG",
            metavar="FILE",
            help="Settings with the login for --nats.",
        ),
        click.option("--nats", metavar="URL", required=True, help="Where the leader is found."),
        click.option("--by", metavar="WHO", help="Who asks (default: user@host)."),
        click.option("--reason", required=True, help="Why; stands in the decision log."),
    )
    decorated: Callable[..., Any] = together
    for option in options:
        decorated = option(decorated)
    return decorated


def be_sure(question: str, *, yes: bool) -> None:
    """Ask whether it is meant, unless that was said already."""
    if not yes:
        click.confirm(question, abort=True, err=True)


def give_order(verb: str, target: str, giving: Giving, *, lasts_s: float | None = None) -> int:
    """Give one order, print its answer, return the exit code; a refusal is a finding (1)."""
    log_to_stderr()
    accepted, text, seq = run_async(_give(verb, target, giving, lasts_s))
    record = f" (record {seq})" if seq else ""
    if not accepted:
        raise CommandError(ExitCode.FINDING, f"{text}{record}")
    click.echo(f"{text}{record}")
    return ExitCode.OK


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except OSError:  # a container's user without a name
        return socket.gethostname()


async def _give(
    verb: str, target: str, giving: Giving, lasts_s: float | None
) -> tuple[bool, str, int]:
    from remediator.bus.protocols import (  # noqa: PLC0415 - not needed for --help
        BusUnavailableError,
        NobodyAnswersError,
    )
    from remediator.engine.events import Verb  # noqa: PLC0415 - the same
    from remediator.orders import Order, give  # noqa: PLC0415 - the same

    order = Order(
        id=secrets.token_hex(8),
        verb=Verb(verb),
        target=target,
        by=giving.by or _who(),
        reason=giving.reason,
        lasts_s=lasts_s,
    )
    choice = SourceChoice(nats=giving.nats, config_file=giving.config_file)
    async with nats_connection(choice) as connection:
        try:
            answer = await give(connection, order)
        except NobodyAnswersError as error:
            raise CommandError(ExitCode.NO_DAEMON, "no daemon on this NATS leads now") from error
        except BusUnavailableError as error:
            raise CommandError(ExitCode.NO_NATS, str(error)) from error
    return answer.accepted, answer.text, answer.seq
