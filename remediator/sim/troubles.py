"""What is wrong with single VMs and volumes, beyond one run of them, until somebody mends it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Troubles:
    """Plain sets for faults to fill. VMs are named as in the ledger, ``NAMESPACE/NAME``."""

    no_boot: set[str] = field(default_factory=set)  # qemu does not start: every run of it fails
    no_image: set[str] = field(default_factory=set)  # an image of its pod cannot be pulled
    no_attach: set[str] = field(default_factory=set)  # PersistentVolumes that cannot be attached
    no_snapshots: set[str] = field(default_factory=set)  # their storage class makes none
    snapshot_fails: set[str] = field(default_factory=set)  # theirs do not become ready
