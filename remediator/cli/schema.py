"""``remediator schema``: the formats that other programs may speak."""

from __future__ import annotations

import click

from remediator.cli.output import dump


@click.group()
def schema() -> None:
    """Print the schemas of what travels on NATS."""


@schema.command()
def signal() -> None:
    """Print the JSON Schema (2020-12) of a signal, the document of remediator.signal.>."""
    from remediator.signals.schema import signal_schema  # noqa: PLC0415 - not needed for --help

    click.echo(dump(signal_schema(), "json"), nl=False)
