"""``remediator demo``: a simulated host dies, and the real daemon brings its VMs back."""

from __future__ import annotations

from pathlib import Path

import click

from remediator.cli.entry import log_to_stderr, run_async

FAULTS = ("power-loss", "kernel-panic", "partition", "kubelet-hang", "flapping")


@click.command()
@click.option("--nodes", type=click.IntRange(3, 200), default=12, show_default=True)
@click.option("--vms", type=click.IntRange(1, 5000), default=60, show_default=True)
@click.option("--zones", type=click.IntRange(1, 26), default=3, show_default=True)
@click.option(
    "--fault",
    type=click.Choice(FAULTS),
    default="power-loss",
    show_default=True,
    help="What happens to the host. A partition or a panic leaves it powered on: it is given 20 s "
    "to come back before it is powered off.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same cluster.")
@click.option("--keep", is_flag=True, help="Leave everything running afterwards, until Ctrl-C.")
@click.option("--plain", is_flag=True, help="Print lines instead of the live view.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the daemon's files go; default a new temporary directory.",
)
def demo(
    *,
    nodes: int,
    vms: int,
    zones: int,
    fault: str,
    seed: int,
    keep: bool,
    plain: bool,
    directory: Path | None,
) -> int:
    """Watch a host die and its VMs come back, on this machine alone.

    Starts a simulated cluster (API server, hosts, BMCs and storage over HTTP on loopback), the real
    daemon in its own process with a real NATS server, takes one host away, and shows what happens.
    """
    # All of it is loaded only here: the simulated cluster is large, and --help must be quick.
    from remediator.cli.demo_course import Course, DemoOptions  # noqa: PLC0415

    log_to_stderr()
    options = DemoOptions(
        nodes=nodes,
        vms=vms,
        zones=zones,
        fault=fault,
        seed=seed,
        keep=keep,
        plain=plain,
        directory=directory,
    )
    return run_async(Course(options).run())
