"""``remediator config``: what the settings are, once everything is laid over each other."""

from __future__ import annotations

from pathlib import Path

import click

from remediator.cli.output import dump
from remediator.cli.settings_options import config_option, load_settings


@click.group()
def config() -> None:
    """Check and print settings."""


@config.command()
@config_option
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml")
def show(config_file: Path | None, output: str) -> None:
    """Print the effective settings; secrets are only names of files.

    Exits with 2 and names every wrong key when they cannot be used.
    """
    from remediator.config import effective  # noqa: PLC0415 - not needed for --help

    click.echo(dump(effective(load_settings(config_file, {})), output), nl=False)
