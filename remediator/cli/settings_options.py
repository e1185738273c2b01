"""Loading settings for a command: file, environment, and the flags that were given."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path

import click

from remediator.cli.entry import CommandError
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from remediator.config import Settings

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    envvar="REMEDIATOR_CONFIG",
    metavar="FILE",
    help="YAML file with settings (also $REMEDIATOR_CONFIG).",
)


def load_settings(config_file: Path | None, flags: Mapping[str, object]) -> Settings:
    """Return the effective settings; ends the command when they cannot be used."""
    from remediator.config import ConfigError, load  # noqa: PLC0415 - not needed for --help

    try:
        return load(config_file, flags=flags)
    except ConfigError as error:
        raise CommandError(ExitCode.USAGE, str(error)) from error
