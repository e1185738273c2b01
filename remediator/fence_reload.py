"""FenceConfigs in the cluster: taken as they change, kept where they go bad, told in their status.

Every replica watches them, so that whoever leads next has them. A good object takes its place at
once; a bad one leaves the last good one of its name in force, for as long as this process lives.
The leader alone writes what it thinks of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from remediator.actions.fence.agent_catalog import AgentCatalog, programs
from remediator.actions.fence.check_rows import CheckRow
from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.loading import unusable_files
from remediator.clock import Clock
from remediator.fence_config.custom_resource import read_object
from remediator.fence_config.loader import FenceConfig, in_order
from remediator.fence_status import status_of
from remediator.kube.client import KubeClient, PatchKind
from remediator.kube.custom_watch import CustomWatch
from remediator.kube.discovery import ApiDiscovery
from remediator.kube.errors import ApiError
from remediator.kube.fence_configs import FENCE_CONFIGS, FenceConfigObject, status_path
from remediator.kube.reflector_settings import ReflectorSettings
from remediator.kube.transport import Transport, TransportError
from remediator.typed_tree import Problem, dotted

log = structlog.get_logger(__name__)

# Several objects are often applied together; they are taken together, too.
_GATHER_S: Final = 0.5
_STATUS_EVERY_S: Final = 30.0
_STATUS_TIMEOUT_S: Final = 5.0
_FAULTS_MAX: Final = 50  # in one message; the API server takes 32 KiB


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One object, and what became of it."""

    generation: int
    faults: tuple[str, ...]
    in_force: bool  # it, or an earlier good one of its name


class FenceReload:
    """Keeps the devices true to the objects. ``run`` works until cancelled.

    ``fixed`` are the configurations of files, which no object can replace. ``on_loaded`` is called
    after the devices were changed.
    """

    def __init__(
        self,
        transport: Transport,
        discovery: ApiDiscovery,
        devices: FenceDevices,
        catalog: AgentCatalog,
        clock: Clock,
        *,
        identity: str,
        reflector: ReflectorSettings,
        on_loaded: Callable[[], None],
        rows: Callable[[], Sequence[CheckRow]],
    ) -> None:
        self._client = KubeClient(transport)
        self._devices = devices
        self._catalog = catalog
        self._clock = clock
        self._fixed = devices.configs
        self._on_loaded = on_loaded
        self._rows = rows
        self._good: dict[str, FenceConfig] = {}
        self._changed = asyncio.Event()
        self._write = asyncio.Event()
        self.loaded = asyncio.Event()  # all that there was at first is in force
        self.judged: dict[str, Judged] = {}
        self._watch = CustomWatch(
            transport,
            FENCE_CONFIGS,
            _Changes(self._changed),
            discovery,
            clock=clock,
            rng=random.Random(f"fence-configs/{identity}"),  # noqa: S311 - jitter is no secret
            settings=reflector,
            on_settled=self._changed.set,
        )

    async def run(self) -> None:
        """Watch and take over, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run(), name="watch-fence-configs")
            while True:
                await self._changed.wait()
                self._changed.clear()
                if not self._watch.settled:
                    continue
                if self._watch.store:
                    await asyncio.sleep(_GATHER_S)
                    self._changed.clear()
                try:
                    await self._take({key[1]: obj for key, obj in self._watch.store.items()})
                except Exception:
                    # No object, however odd, may end every replica: what was in force stays so.
                    log.exception("fence_configs_broken")
                self.loaded.set()
                self._write.set()

    async def first(self, timeout_s: float) -> None:
        """Wait until what there was at first is in force; go on without it after the timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.loaded.wait()
        except TimeoutError:
            log.warning("fence_configs_unknown", waited_s=timeout_s)

    async def tell(self, leads: Callable[[], bool]) -> None:
        """Keep the objects' status true, until cancelled; for the leader."""
        self._write.set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STATUS_EVERY_S):
                    await self._write.wait()
            self._write.clear()
            rows = self._rows() if self._watch.store else []
            for key, obj in list(self._watch.store.items()):
                judged = self.judged.get(key[1])
                if judged is not None and leads():
                    await self._tell(obj, judged, [row for row in rows if row.config == key[1]])

    async def _take(self, objects: Mapping[str, FenceConfigObject]) -> None:
        found = {name: read_object(name, obj.spec) for name, obj in objects.items()}
        await self._catalog.read(programs(one.spec for one, _ in found.values() if one))
        taken = {one.name for one in self._fixed}
        good: dict[str, FenceConfig] = {}
        judged: dict[str, Judged] = {}
        for name, (config, problems) in found.items():
            faults = list(problems)
            if config is not None:
                faults += [*self._catalog.faults(config.spec), *self._catalog.missing(config.spec)]
                faults += unusable_files(config.spec)
            if name in taken:
                text = "a configuration of the daemon's own files has this name"
                faults.append(Problem(("metadata", "name"), text))
            kept = self._good.get(name) if faults else config
            if kept is not None:
                good[name] = kept
            told = tuple(": ".join((dotted(one.path), one.text)) for one in faults[:_FAULTS_MAX])
            judged[name] = Judged(
                generation=objects[name].generation, faults=told, in_force=name in good
            )
            if told and told != getattr(self.judged.get(name), "faults", ()):
                log.warning("fence_config_refused", name=name, faults=told, kept=name in good)
        self._good, self.judged = good, judged
        if await self._devices.replace([*self._fixed, *in_order(good.values())]):
            log.info("fence_configs_loaded", names=[one.name for one in self._devices.configs])
            self._on_loaded()

    async def _tell(self, obj: FenceConfigObject, judged: Judged, rows: list[CheckRow]) -> None:
        status = status_of(obj, judged.generation, judged.faults, rows, self._clock.now())
        if status is None:
            return
        try:
            await self._client.patch(
                status_path(obj.name),
                {"metadata": {"resourceVersion": obj.resource_version}, "status": status},
                kind=PatchKind.MERGE,
                timeout_s=_STATUS_TIMEOUT_S,
            )
        except (ApiError, TransportError) as error:
            log.info("fence_config_status_not_written", name=obj.name, why=str(error))


class _Changes:
    """The watch's sink: any change wakes the one who looks at all of them."""

    def __init__(self, changed: asyncio.Event) -> None:
        self._changed = changed

    def seen(self, obj: FenceConfigObject, old: FenceConfigObject | None, *, initial: bool) -> None:
        """Wake, where it is not only our own words that changed."""
        del initial
        if old is None or old.spec != obj.spec or old.uid != obj.uid:
            self._changed.set()

    def gone(self, obj: FenceConfigObject) -> None:
        """Wake."""
        del obj
        self._changed.set()

    def synced(self) -> None:
        """Wake."""
        self._changed.set()

    def progressed(self, at: float) -> None:
        """Ignore it: silence of this watch changes nothing."""
