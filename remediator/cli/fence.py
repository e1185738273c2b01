"""``remediator fence``: fence devices, and what people order about hosts."""

from __future__ import annotations

import click

from remediator.cli.fence_check import check, lint
from remediator.cli.giving import Giving, be_sure, give_order, order_options


@click.group()
def fence() -> None:
    """Check fence devices; order hosts off or on; confirm that one is off."""


fence.add_command(check)
fence.add_command(lint)

_YES = click.option("--yes", is_flag=True, help="Do not ask whether it is meant.")


@fence.command("confirm-off")
@click.argument("node")
@_YES
@order_options
def confirm_off(node: str, giving: Giving, *, yes: bool) -> int:
    """Say that you have seen that NODE is off and cannot write to its disks.

    Its VMs are then started elsewhere, without a fence. If it is not off, disks will be destroyed.

    For example: remediator confirm-off n7 --reason 'pulled both cords' --nats nats://nats:4222
    """
    be_sure(f"Have you seen that {node} is off? If it is not, its disks will be destroyed", yes=yes)
    return give_order("confirm-off", node, giving)


@fence.command("off")
@click.argument("node")
@_YES
@order_options
def off(node: str, giving: Giving, *, yes: bool) -> int:
    """Power NODE off through its fence configuration, whether it lives or not."""
    be_sure(f"Power {node} off, with all that runs on it?", yes=yes)
    return give_order("fence-off", node, giving)


@fence.command("on")
@click.argument("node")
@_YES
@order_options
def on(node: str, giving: Giving, *, yes: bool) -> int:
    """Power NODE on through its fence configuration."""
    be_sure(f"Power {node} on?", yes=yes)
    return give_order("fence-on", node, giving)
