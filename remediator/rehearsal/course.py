"""What became of a simulated scenario, as it is printed and as programs read it."""

from __future__ import annotations

import msgspec


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """How it stood at one time, in seconds since the first event."""

    at_s: float
    hosts: dict[str, int]  # incident state -> hosts in it
    proven: int  # hosts proven off or rebooted so far
    released: int  # hosts whose volumes were let go so far
    down: int  # VMs that should run and of which no guest is up, by the truth of the hosts
    requested: int  # VMs whose new VMI was seen so far
    booting: int
    up: int  # VMs that were lost and are up again


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened, or that was decided."""

    at_s: float
    subject: str
    what: str  # kind of the record and its step, or "event"
    verdict: str = ""
    why: str = ""


class HostCourse(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one host. Times are seconds since the first event; ``None``: never."""

    host: str
    verdict: str
    convicted_s: float | None = None
    proven_s: float | None = None
    proof: str = ""
    released_s: float | None = None
    resolved_s: float | None = None
    state: str = ""
    vms: int = 0
    withheld: dict[str, int] = {}  # guard -> how often it withheld


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """How the VMs fared that the events took down."""

    lost: int = 0
    up: int = 0
    left: tuple[str, ...] = ()  # not up again though they should run
    median_s: float | None = None
    p95_s: float | None = None
    last_s: float | None = None
    peak_boots: int = 0
    peak_boots_s: float | None = None
    peak_boots_host: int = 0
    double_runs: int = 0


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a scenario."""

    about: str
    seed: int
    mode: str
    nodes: int
    zones: int
    vms: int
    policies: dict[str, str]  # name -> content hash, in the order asked
    answered: dict[str, int]  # policy -> incidents that it answered
    ended_s: float
    calm: bool  # all was well when it ended
    recovery: Recovery
    hosts: tuple[HostCourse, ...]
    moments: tuple[Moment, ...]
    lines: tuple[Line, ...]
    records: int
    kinds: dict[str, int]  # records by kind
