"""What people order about scopes and incidents: pause, resume, approve, deny, retry, cancel.

Whoever leads obeys or refuses; either stands in the decision log, with who asked and why.
"""

from __future__ import annotations

import time

import click

from remediator.cli.entry import CommandError
from remediator.cli.giving import Giving, give_order, order_options
from remediator.exit_codes import ExitCode

_SCOPE = click.option(
    "--scope",
    default="cluster",
    metavar="SCOPE",
    show_default=True,
    help="cluster, zone/NAME, node/NAME, namespace/NAME or vm/NAMESPACE/NAME.",
)
_INCIDENT = click.argument("incident", metavar="INCIDENT|node/NAME|vm/NAMESPACE/NAME")


@click.command()
@_SCOPE
@click.option("--ignore", is_flag=True, help="Not frozen, but none of our business.")
@click.option(
    "--until", metavar="WHEN", help="It ends by itself: in 2h, or at 2026-11-20T18:00 (UTC)."
)
@order_options
def pause(scope: str, until: str | None, giving: Giving, *, ignore: bool) -> int:
    """Begin nothing more in SCOPE; what is under way is held at its next safe point.

    With --ignore, incidents are not even opened there, and open ones are closed. Nodes that are
    back are released either way.

    For example: remediator pause --scope zone/zone-b --until 2h --reason 'switch firmware' --nats …
    """
    verb = "ignore" if ignore else "pause"
    return give_order(verb, scope, giving, lasts_s=_lasts_s(until))


@click.command()
@_SCOPE
@order_options
def resume(scope: str, giving: Giving) -> int:
    """End the pause of SCOPE."""
    return give_order("resume", scope, giving)


@click.command()
@_INCIDENT
@order_options
def approve(incident: str, giving: Giving) -> int:
    """Say yes to the plan of an incident; limits on how much and how often are lifted for it."""
    return give_order("approve", incident, giving)


@click.command()
@_INCIDENT
@order_options
def deny(incident: str, giving: Giving) -> int:
    """Say no to the plan of an incident."""
    return give_order("deny", incident, giving)


@click.command()
@_INCIDENT
@order_options
def retry(incident: str, giving: Giving) -> int:
    """Try the plan of an incident again now: after it was given up, denied or cancelled."""
    return give_order("retry", incident, giving)


@click.command()
@_INCIDENT
@order_options
def cancel(incident: str, giving: Giving) -> int:
    """Stop the plan of an incident at its next safe point."""
    return give_order("cancel", incident, giving)


def _lasts_s(until: str | None) -> float | None:
    """Return how long a pause lasts. Ends the command where WHEN cannot be read, or is over."""
    from remediator.durations import parse_duration, parse_moment  # noqa: PLC0415 - not for --help

    if until is None:
        return None
    try:
        return parse_duration(until)
    except ValueError:
        pass
    now = time.time()
    try:
        lasts_s = parse_moment(until, now) - now
    except ValueError:
        why = f"{until!r} is no time: write 2h (from now) or 2026-11-20T18:00 (UTC)"
        raise CommandError(ExitCode.USAGE, f"--until: {why}") from None
    if lasts_s <= 0:
        raise CommandError(ExitCode.USAGE, f"--until: {until} is over")
    return lasts_s
