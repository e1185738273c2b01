"""virt-launcher: the process in a launcher pod that owns one domain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from remediator.sim.hosts.domain import Domain, DomainEnd
from remediator.sim.hosts.wire import Obj

CREATED_BY_LABEL = "kubevirt.io/created-by"
LAUNCHER_LABEL = "kubevirt.io"
MIGRATION_LABEL = "kubevirt.io/migrationJobUID"


def is_launcher(pod: Obj) -> bool:
    """Tell whether a pod is a virt-launcher."""
    return (pod["metadata"].get("labels") or {}).get(LAUNCHER_LABEL) == "virt-launcher"


class Launcher:
    """Lives as long as its pod's compute container.

    It exits when its domain has ended. A SIGTERM only asks virt-handler to end the domain; without
    virt-handler nothing happens until the kubelet kills it (lab section 4).
    """

    def __init__(
        self, pod: Obj, *, exited: Callable[[], None], terminating: Callable[[Launcher], None]
    ) -> None:
        labels = pod["metadata"]["labels"]
        self.pod_uid: str = pod["metadata"]["uid"]
        self.pod_name: str = pod["metadata"]["name"]
        self.vmi_uid: str = labels[CREATED_BY_LABEL]
        self.migration_uid: str = labels.get(MIGRATION_LABEL, "")
        self.domain: Domain | None = None
        self.term_requested = False
        self.exited = asyncio.Event()
        self._on_exit = exited
        self._on_terminating = terminating

    @property
    def running_domain(self) -> Domain | None:
        """Its domain while that exists."""
        return self.domain if self.domain is not None and self.domain.alive else None

    @property
    def ended_well(self) -> bool:
        """Whether the container's exit code is 0."""
        return self.domain is None or self.domain.end in (DomainEnd.SHUTDOWN, DomainEnd.MIGRATED)

    def terminate(self) -> None:
        """Take a SIGTERM."""
        self.term_requested = True
        if self.running_domain is None:
            self.exit()
        else:
            self._on_terminating(self)

    def kill(self, why: str) -> None:
        """Take a SIGKILL: the domain goes with it."""
        if self.running_domain is not None:
            self.running_domain.destroy(why)
        self.exit()

    def exit(self) -> None:
        """End the process."""
        if not self.exited.is_set():
            self.exited.set()
            self._on_exit()
