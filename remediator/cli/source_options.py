"""Choosing the source of decisions from a command's options."""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from remediator.cli.entry import CommandError
from remediator.cli.settings_options import load_settings
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from remediator.bus.connection import BusConnection
    from remediator.cli.sources import DecisionSource, SqliteSource

DEFAULT_SERVER = "http://127.0.0.1:8080"


_CONFIG = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    envvar="REMEDIATOR_CONFIG",
    metavar="FILE",
    help="Settings with the login for --nats.",
)
_SERVER = click.option(
    "--server",
    metavar="URL",
    envvar="REMEDIATOR_SERVER",
    help=f"Ask a daemon's API (default {DEFAULT_SERVER}).",
)


class SourceChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What the user said about where to read."""

    server: str | None = None
    db: Path | None = None
    nats: str | None = None
    config_file: Path | None = None


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--server``, ``--db``, ``--nats`` and ``--config`` to a command."""
    for option in (
        _CONFIG,
        click.option("--nats", metavar="URL", help="Read the journal from NATS itself."),
        click.option(
            "--db",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Read a daemon's SQLite file (journal.sqlite).",
        ),
        _SERVER,
    ):
        command = option(command)
    return command


def live_source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--server``, ``--nats`` and ``--config``: for what only a running leader knows."""
    for option in (
        _CONFIG,
        click.option("--nats", metavar="URL", help="Ask whoever leads, over NATS."),
        _SERVER,
    ):
        command = option(command)
    return command


@asynccontextmanager
async def open_source(choice: SourceChoice) -> AsyncIterator[DecisionSource]:
    """Open the chosen source. Without a choice: the local daemon, else its SQLite file."""
    given = [f"--{name}" for name in ("server", "db", "nats") if getattr(choice, name) is not None]
    if len(given) > 1:
        raise CommandError(ExitCode.USAGE, f"give one of {' and '.join(given)}, not both")
    from remediator.cli.sources import SqliteSource  # noqa: PLC0415 - not needed for --help

    if choice.db is not None:
        file = SqliteSource(choice.db)
        try:
            yield file
        finally:
            file.close()
    elif choice.nats is not None:
        async with _from_nats(choice) as stream:
            yield stream
    else:
        async with _from_server(choice) as source:
            yield source


@asynccontextmanager
async def _from_server(choice: SourceChoice) -> AsyncIterator[DecisionSource]:
    import aiohttp  # noqa: PLC0415 - costs 150 ms, and the other sources do not need it

    from remediator.cli.http_source import HTTP_TIMEOUT_S, HttpSource  # noqa: PLC0415 - the same

    timeout = aiohttp.ClientTimeout(total=HTTP_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        server = HttpSource(session, choice.server or DEFAULT_SERVER)
        fallback: SqliteSource | None = None
        if choice.server is None:
            try:
                await server.get(1)
            except CommandError as error:
                fallback = _local_file(choice, error)
        try:
            yield fallback or server
        finally:
            if fallback is not None:
                fallback.close()


def _local_file(choice: SourceChoice, error: CommandError) -> SqliteSource:
    """Open this host's projection because no daemon answers; says so on stderr."""
    from remediator.cli.sources import SqliteSource  # noqa: PLC0415 - not needed for --help

    path = Path(load_settings(choice.config_file, {"nats.url": "embedded"}).journal.path)
    if not path.is_file():
        raise CommandError(
            ExitCode.NO_DAEMON,
            f"no daemon answers ({error.message}); say where to read: --server URL, --db FILE or"
            " --nats URL",
        )
    click.echo(f"no daemon answers at {DEFAULT_SERVER}; reading {path}, as it was left", err=True)
    return SqliteSource(path)


@asynccontextmanager
async def _from_nats(choice: SourceChoice) -> AsyncIterator[DecisionSource]:
    from remediator.bus.journal_stream import (  # noqa: PLC0415 - nats-py costs 150 ms
        JournalGapError,
        NatsJournal,
    )
    from remediator.bus.settings import redacted  # noqa: PLC0415 - the same
    from remediator.cli.sources import StreamSource  # noqa: PLC0415 - the same

    try:
        async with nats_connection(choice) as connection:
            source = StreamSource(NatsJournal(connection), redacted(connection.settings.url))
            try:
                yield source
            finally:
                source.close()
    except JournalGapError as error:
        raise CommandError(ExitCode.JOURNAL, f"{error}; see: decisions verify") from error


@asynccontextmanager
async def nats_connection(choice: SourceChoice) -> AsyncIterator[BusConnection]:
    """Connect to the NATS of ``--nats``, with the login of the settings."""
    settings = load_settings(choice.config_file, {"nats.url": choice.nats}).nats
    from remediator.bus.connection import connect  # noqa: PLC0415 - nats-py costs 150 ms
    from remediator.bus.protocols import BusUnavailableError  # noqa: PLC0415 - the same
    from remediator.bus.settings import EMBEDDED  # noqa: PLC0415 - the same

    if settings.url == EMBEDDED:
        raise CommandError(
            ExitCode.USAGE, "--nats embedded is the daemon's own server; ask it with --server"
        )
    try:
        connection = await connect(settings, "remediator-cli")
        try:
            yield connection
        finally:
            await connection.close()
    except BusUnavailableError as error:
        raise CommandError(ExitCode.NO_NATS, str(error)) from error
