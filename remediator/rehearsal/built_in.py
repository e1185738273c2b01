"""The scenarios that come with remediator, each for clusters of any size."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from remediator.rehearsal.scenario import (
    ClusterSize,
    Happening,
    Scenario,
    ScenarioError,
    Verb,
)


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may say about the size; ``None``: the scenario's own."""

    nodes: int | None = None
    zones: int | None = None
    vms: int | None = None
    hosts: int | None = None  # that are lost


class BuiltIn(msgspec.Struct, frozen=True, kw_only=True):
    """One built-in scenario."""

    name: str
    about: str
    cluster: ClusterSize
    hosts: int  # that are lost, where hosts are
    across: bool = False  # hosts of all zones by turns, not of one
    make: Callable[[list[str]], tuple[Happening, ...]]  # from the hosts that are lost
    until_s: float = 1800.0


def built_in(name: str, sizes: Sizes) -> Scenario:
    """Return a built-in scenario at this size. Raises ScenarioError."""
    shipped = SHIPPED[name]
    given = {
        field: value
        for field in ("nodes", "zones", "vms")
        if (value := getattr(sizes, field)) is not None
    }
    cluster = msgspec.structs.replace(shipped.cluster, **given)
    lost = shipped.hosts if sizes.hosts is None else sizes.hosts
    workers = _workers(cluster, across=shipped.across)
    if shipped.hosts and not 1 <= lost <= len(workers):
        whose = "the cluster" if shipped.across else "a zone"
        raise ScenarioError(f"hosts: {lost} is not between 1 and {len(workers)}, those of {whose}")
    return Scenario(
        about=shipped.about,
        cluster=cluster,
        happenings=shipped.make(workers[:lost]),
        until_s=shipped.until_s,
    )


def _workers(cluster: ClusterSize, *, across: bool) -> list[str]:
    hosts = cluster.spec(seed=1).host_specs()
    workers = [host for host in hosts if not host.control_plane]
    return [host.name for host in workers if across or host.zone == workers[0].zone]


def _power(lost: list[str]) -> tuple[Happening, ...]:
    return (Happening(at_s=0.0, verb=Verb.POWER_LOSS, to=tuple(lost)),)


def _zone_cut(_lost: list[str]) -> tuple[Happening, ...]:
    return (
        Happening(at_s=0.0, verb=Verb.CUT_ZONE, to=("zone-a",)),
        Happening(at_s=300.0, verb=Verb.MEND_ZONE, to=("zone-a",)),
    )


def _api_away(lost: list[str]) -> tuple[Happening, ...]:
    return (
        Happening(at_s=0.0, verb=Verb.API, to=("hang",)),
        Happening(at_s=60.0, verb=Verb.POWER_LOSS, to=tuple(lost)),
        Happening(at_s=180.0, verb=Verb.API, to=("ok",)),
    )


SHIPPED: dict[str, BuiltIn] = {
    each.name: each
    for each in (
        BuiltIn(
            name="host-lost",
            about="One host loses its power.",
            cluster=ClusterSize(nodes=12, vms=60),
            hosts=1,
            make=_power,
        ),
        BuiltIn(
            name="rack-lost",
            about="A rack loses its power: four hosts of one zone at once.",
            cluster=ClusterSize(nodes=24, vms=240),
            hosts=4,
            make=_power,
        ),
        BuiltIn(
            name="zone-cut",
            about="A zone is cut off from all others for five minutes; its VMs run on.",
            cluster=ClusterSize(nodes=12, vms=60),
            hosts=0,
            make=_zone_cut,
            until_s=900.0,
        ),
        BuiltIn(
            name="storm",
            about="500 VMs run on 40 hosts, and a quarter of the hosts loses its power at once.",
            cluster=ClusterSize(nodes=40, vms=500),
            hosts=10,
            across=True,
            make=_power,
        ),
        BuiltIn(
            name="api-away",
            about="The API server hangs for three minutes, and a host dies meanwhile.",
            cluster=ClusterSize(nodes=12, vms=60),
            hosts=1,
            make=_api_away,
        ),
    )
}
