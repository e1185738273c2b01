"""Settings of the network probes: what is tried, how often, and where the prober stands. A leaf."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]

ADDRESS: Final = "{address}"  # stands for the node's address in a URL of ``https``


class ProbeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One vantage point: a prober, the place where it stands, and its pace.

    In peace one kind of probe, the one that answered last, is tried per node; all kinds together
    as soon as something is wrong.
    """

    enabled: bool = True  # of the daemon's own prober
    # Names and places. Two probers must not share a name.
    vantage: str = ""  # empty: the identity; of ``remediator probe``, "probe-IDENTITY"
    zone: str = ""  # empty: the zone of ``node``
    node: str = ""  # the node that the prober runs on; its own host is no reference
    # What is tried besides the kubelet's port.
    kubelet: bool = True  # TCP to the port that the node reports
    ports: tuple[Port, ...] = ()  # TCP
    icmp: bool = True  # only where the kernel lets us (net.ipv4.ping_group_range)
    https: tuple[str, ...] = ()  # such as "https://{address}:9443/healthz"; any status answers
    # "ADDRESS:PORT" of what must be reachable besides nodes, one of them at least.
    references: tuple[str, ...] = ()
    # A round trip within a cluster takes milliseconds, and a lost SYN is repeated after 1 s.
    deadline_s: Positive = 1.0
    peace_period_s: Positive = 5.0
    asked_period_s: Positive = 1.0
    asked_for_s: Positive = 30.0  # how long one ask lasts
    rounds_to_down: AtLeastOne = 3  # failed rounds in succession
    refresh_s: Positive = 120.0  # an unchanged reading is published again after this time
    life_s: Positive = 5.0  # between signs of the prober's own life; the engine waits for three
    # Of a zone that died each node costs a whole deadline; the bound keeps file descriptors free.
    in_flight_peace: AtLeastOne = 256
    in_flight_asked: AtLeastOne = 512


class ProbeSettingsError(ValueError):
    """A setting of the probes that cannot work; ``path`` leads to it, the text says why."""

    def __init__(self, text: str, *path: str | int) -> None:
        super().__init__(text)
        self.path = path


def check_settings(settings: ProbeSettings) -> None:
    """Refuse what types cannot. Raises ProbeSettingsError."""
    if not (settings.kubelet or settings.ports or settings.icmp or settings.https):
        raise ProbeSettingsError("no kind of probe is left: allow one", "kubelet")
    for number, reference in enumerate(settings.references):
        try:
            reference_address(reference)
        except ValueError as error:
            raise ProbeSettingsError(str(error), "references", number) from error
    for number, url in enumerate(settings.https):
        try:
            parts = urlsplit(url.replace(ADDRESS, "192.0.2.1"))
            usable = parts.scheme == "https" and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or ADDRESS not in url:
            text = f"{url!r} must look like https://{ADDRESS}:9443/healthz"
            raise ProbeSettingsError(text, "https", number)


def reference_address(text: str) -> tuple[str, int]:
    """Split ``ADDRESS:PORT`` and ``[V6]:PORT``. Raises ValueError.

    Only addresses: to wait for a name's resolution would make the resolver's trouble the host's.
    """
    host, colon, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        address = None
    if not colon or address is None or not port.isdecimal() or not 0 < int(port) <= 65535:
        raise ValueError(f"{text!r} must be an IP address and a port, such as 10.0.0.1:6443")
    return str(address), int(port)
