"""``remediator fence``: fence devices, and what people order about hosts."""

from __future__ import annotations

import getpass
import secrets
import socket
from pathlib import Path

import click

from remediator.cli.entry import CommandError, log_to_stderr, run_async
from remediator.cli.fence_check import check, lint
from remediator.cli.source_options import SourceChoice, nats_connection
from remediator.exit_codes import ExitCode


@click.group()
def fence() -> None:
    """Check fence devices; order hosts off or on; confirm that one is off."""


fence.add_command(check)
fence.add_command(lint)


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except OSError:  # a container's user without a name
        return socket.gethostname()


_NODE = click.argument("node")
_NATS = click.option("--nats", metavar="URL", required=True, help="Where the leader is found.")
_CONFIG = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    envvar="REMEDIATOR_CONFIG",
    metavar="FILE",
    help="Settings with the login for --nats.",
)
_REASON = click.option("--reason", required=True, help="Why; stands in the decision log.")
_BY = click.option("--by", metavar="WHO", help="Who asks (default: user@host).")
_YES = click.option("--yes", is_flag=True, help="Do not ask whether it is meant.")


@fence.command("confirm-off")
@_NODE
@_REASON
@_BY
@_YES
@_NATS
@_CONFIG
def confirm_off(
    node: str, reason: str, by: str | None, nats: str, config_file: Path | None, *, yes: bool
) -> int:
    r"""Say that you have seen that NODE is off and cannot write to its disks.

    Its VMs are then started elsewhere, without a fence. If it is not off, disks will be destroyed.

    \b
      remediator fence confirm-off n7 --reason 'pulled both cords' --nats nats://nats:4222
    """
    _be_sure(
        f"Have you seen that {node} is off? If it is not, its disks will be destroyed", yes=yes
    )
    return _order("confirm-off", node, reason, by, nats, config_file)


@fence.command("off")
@_NODE
@_REASON
@_BY
@_YES
@_NATS
@_CONFIG
def off(
    node: str, reason: str, by: str | None, nats: str, config_file: Path | None, *, yes: bool
) -> int:
    """Power NODE off through its fence configuration, whether it lives or not."""
    _be_sure(f"Power {node} off, with all that runs on it?", yes=yes)
    return _order("fence-off", node, reason, by, nats, config_file)


@fence.command("on")
@_NODE
@_REASON
@_BY
@_YES
@_NATS
@_CONFIG
def on(
    node: str, reason: str, by: str | None, nats: str, config_file: Path | None, *, yes: bool
) -> int:
    """Power NODE on through its fence configuration."""
    _be_sure(f"Power {node} on?", yes=yes)
    return _order("fence-on", node, reason, by, nats, config_file)


def _be_sure(question: str, *, yes: bool) -> None:
    if not yes:
        click.confirm(question, abort=True, err=True)


def _order(
    verb: str, node: str, reason: str, by: str | None, nats: str, config_file: Path | None
) -> int:
    log_to_stderr()
    choice = SourceChoice(nats=nats, config_file=config_file)
    accepted, text, seq = run_async(_give(choice, verb, node, reason, by or _who()))
    record = f" (record {seq})" if seq else ""
    if not accepted:
        raise CommandError(ExitCode.FINDING, f"{text}{record}")
    click.echo(f"{text}{record}")
    return ExitCode.OK


async def _give(
    choice: SourceChoice, verb: str, node: str, reason: str, by: str
) -> tuple[bool, str, int]:
    from remediator.bus.protocols import (  # noqa: PLC0415 - not needed for --help
        BusUnavailableError,
        NobodyAnswersError,
    )
    from remediator.engine.events import Verb  # noqa: PLC0415 - the same
    from remediator.orders import Order, give  # noqa: PLC0415 - the same

    order = Order(id=secrets.token_hex(8), verb=Verb(verb), target=node, by=by, reason=reason)
    async with nats_connection(choice) as connection:
        try:
            answer = await give(connection, order)
        except NobodyAnswersError as error:
            raise CommandError(ExitCode.NO_DAEMON, "no daemon on this NATS leads now") from error
        except BusUnavailableError as error:
            raise CommandError(ExitCode.NO_NATS, str(error)) from error
    return answer.accepted, answer.text, answer.seq
