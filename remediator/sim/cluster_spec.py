"""What a simulated cluster consists of."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from remediator.sim.controllers.settings import ControlPlaneSettings
from remediator.sim.hosts.settings import HostSettings, HostSpec
from remediator.sim.storage import StorageSettings

_LOOPBACK_SECOND = 77  # 127.0.x.x has other tenants
_ZONE_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _strategies() -> dict[str, float]:
    return {"Always": 0.8, "RerunOnFailure": 0.2}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """Size, mix and timings. The same spec and seed give the same cluster.

    ``nodes`` counts workers, ``control_plane`` further nodes that run no VMs. Shares are between 0
    and 1 and are met exactly (to the nearest VM): ``run_strategies`` by weight, ``rwx_share`` of
    the VMs with a disk, ``diskless_share`` of all VMs, ``agent_share`` of all VMs.
    ``api_latency_s`` is the mean round trip in memory. ``address_prefix`` begins the addresses of
    the hosts; with "127" they are on loopback, where ``probe_ports`` can answer for them.
    """

    nodes: int = 12
    zones: int = 3
    vms: int = 60
    control_plane: int = 0
    seed: int = 1
    namespaces: tuple[str, ...] = ("team-a", "team-b", "team-c")
    run_strategies: Mapping[str, float] = field(default_factory=_strategies)
    rwx_share: float = 0.5
    diskless_share: float = 0.1
    agent_share: float = 0.8
    ignores_shutdown_share: float = 0.0
    vm_cpus: int = 2
    vm_memory_mib: int = 4096
    node_cpus: int = 32
    node_memory_mib: int = 131_072
    api_latency_s: float = 0.0
    address_prefix: str = "10"
    kubelet_port: int = 10250
    bmc_user: str = "admin"
    bmc_password: str = "sim"  # noqa: S105 - of simulated devices
    storage: StorageSettings = field(default_factory=StorageSettings)
    hosts: HostSettings = field(default_factory=HostSettings)
    controllers: ControlPlaneSettings = field(default_factory=ControlPlaneSettings)

    def __post_init__(self) -> None:
        """Raise ValueError for a spec that cannot be built."""
        if self.nodes < 1 or self.vms < 0 or self.control_plane < 0:
            raise ValueError("a cluster needs at least one node, and no negative counts")
        if not 1 <= self.zones <= len(_ZONE_LETTERS):
            raise ValueError(f"zones must be between 1 and {len(_ZONE_LETTERS)}")
        if not self.namespaces:
            raise ValueError("a cluster needs at least one namespace for its VMs")

    def host_specs(self) -> list[HostSpec]:
        """Return all hosts: workers n01, n02…, then control-plane nodes cp1, cp2…."""
        digits = max(2, len(str(self.nodes)))
        names = [f"n{i:0{digits}d}" for i in range(1, self.nodes + 1)]
        names += [f"cp{i}" for i in range(1, self.control_plane + 1)]
        rng = random.Random(f"hardware/{self.seed}")
        return [
            HostSpec(
                name=name,
                system_uuid=_uuid(rng),
                serial=f"SIM{rng.getrandbits(32):08X}",
                address=self._address(index),
                kubelet_port=self.kubelet_port,
                zone=f"zone-{_ZONE_LETTERS[index % self.zones]}",
                control_plane=name.startswith("cp"),
                cpus=self.node_cpus,
                memory_mib=self.node_memory_mib,
            )
            for index, name in enumerate(names)
        ]

    def _address(self, index: int) -> str:
        second = index // 62500
        if self.address_prefix == "127":
            second += _LOOPBACK_SECOND
        return f"{self.address_prefix}.{second}.{index // 250 % 250}.{index % 250 + 1}"

    def vm_specs(self) -> list[VmSpec]:
        """Return all VMs, the mix dealt out at random by the seed."""
        rng = random.Random(f"vms/{self.seed}")
        digits = max(3, len(str(self.vms)))
        strategies = _deal(rng, self.vms, self.run_strategies)
        disks = _deal(
            rng,
            self.vms,
            {
                "": self.diskless_share,
                "ReadWriteMany": (1 - self.diskless_share) * self.rwx_share,
                "ReadWriteOnce": (1 - self.diskless_share) * (1 - self.rwx_share),
            },
        )
        agents = _deal(rng, self.vms, {"yes": self.agent_share, "no": 1 - self.agent_share})
        stubborn = self.ignores_shutdown_share
        ignores = _deal(rng, self.vms, {"yes": stubborn, "no": 1 - stubborn})
        return [
            VmSpec(
                namespace=self.namespaces[index % len(self.namespaces)],
                name=f"vm-{index + 1:0{digits}d}",
                run_strategy=strategies[index],
                access_mode=disks[index],
                agent=agents[index] == "yes",
                ignores_shutdown=ignores[index] == "yes",
                cpus=self.vm_cpus,
                memory_mib=self.vm_memory_mib,
            )
            for index in range(self.vms)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec:
    """One VM. ``access_mode`` is that of its disk's claim; empty for a VM without a disk.

    VMs with the same ``apart`` are copies of one application that must not share a node.
    """

    namespace: str
    name: str
    run_strategy: str = "Always"
    access_mode: str = "ReadWriteMany"
    agent: bool = True
    ignores_shutdown: bool = False
    cpus: int = 2
    memory_mib: int = 4096
    grace_s: int = 30
    apart: str = ""

    @property
    def key(self) -> str:
        """``namespace/name``: the VM's name in the ledger."""
        return f"{self.namespace}/{self.name}"


def _deal(rng: random.Random, count: int, weights: Mapping[str, float]) -> list[str]:
    """Return ``count`` values in these shares (largest remainders), shuffled."""
    total = sum(weights.values())
    if total <= 0 or any(weight < 0 for weight in weights.values()):
        raise ValueError(f"shares must be positive: {dict(weights)}")
    exact = {value: count * weight / total for value, weight in weights.items()}
    dealt = {value: int(share) for value, share in exact.items()}
    by_remainder = sorted(exact, key=lambda value: dealt[value] - exact[value])
    for value in by_remainder[: count - sum(dealt.values())]:
        dealt[value] += 1
    values = [value for value, share in dealt.items() for _ in range(share)]
    rng.shuffle(values)
    return values


def _uuid(rng: random.Random) -> str:
    text = f"{rng.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"
