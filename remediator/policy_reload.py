"""Policies of a directory and of the cluster: taken as they change, kept where they go bad.

A directory may be a mounted ConfigMap, which the kubelet changes by swapping one symbolic link: it
is looked at every few seconds, and read whole where anything about it is new. A file with a fault
leaves the last good policies of that file in force; a bad object leaves the last good one of its
name, for as long as this process lives. Every replica does this, so that whoever leads next has
them; the leader alone writes what it thinks of the objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from remediator.clock import Clock
from remediator.documents import DocumentProblem
from remediator.engine.rules import Policy
from remediator.kube.client import KubeClient, PatchKind
from remediator.kube.custom_watch import CustomWatch
from remediator.kube.discovery import ApiDiscovery
from remediator.kube.errors import ApiError
from remediator.kube.reflector_settings import ReflectorSettings
from remediator.kube.remediation_policies import POLICIES, PolicyObject, status_path
from remediator.kube.transport import Transport, TransportError
from remediator.policy.findings import Finding, Surroundings, findings, findings_in
from remediator.policy.loader import in_order, read, read_object
from remediator.policy_status import status_of
from remediator.typed_tree import Problem, dotted

log = structlog.get_logger(__name__)

_LOOK_EVERY_S: Final = 2.0  # at the directory; the kubelet itself syncs ConfigMaps once a minute
_GATHER_S: Final = 0.5  # several objects are often applied together; they are taken together, too
_STATUS_EVERY_S: Final = 30.0
_STATUS_TIMEOUT_S: Final = 5.0
_FAULTS_MAX: Final = 50  # in one message; the API server takes 32 KiB


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One object, and what became of it."""

    generation: int
    faults: tuple[str, ...]
    in_force: bool  # it, or an earlier good one of its name


class PolicyReload:
    """Keeps ``policies`` true to the files and the objects. ``run`` works until cancelled.

    ``given`` are the policies that were read at the start, from ``directory`` where there is one;
    no object can replace them. ``on_loaded`` is called after they changed.
    """

    def __init__(
        self,
        transport: Transport,
        discovery: ApiDiscovery,
        clock: Clock,
        given: Sequence[Policy],
        *,
        directory: Path | None,
        identity: str,
        reflector: ReflectorSettings,
        on_loaded: Callable[[], None],
        around: Callable[[], Surroundings] = Surroundings,
        matched_at: Callable[[str], float | None] = lambda _name: None,
    ) -> None:
        self._client = KubeClient(transport)
        self._clock = clock
        self._directory = directory
        self._on_loaded = on_loaded
        self._around = around
        self._matched_at = matched_at
        self._of_files = list(given)
        self._of_objects: dict[str, Policy] = {}
        self._seen_files = _fingerprint(directory) if directory is not None else ()
        self._changed = asyncio.Event()
        self._write = asyncio.Event()
        self.policies: tuple[Policy, ...] = tuple(in_order(given))
        self.problems: tuple[DocumentProblem, ...] = ()  # of the files, now
        self.judged: dict[str, Judged] = {}
        self.loaded = asyncio.Event()  # the objects that there were at first are in force
        self.loaded_at = clock.now()
        self._watch = CustomWatch(
            transport,
            POLICIES,
            _Changes(self._changed),
            discovery,
            clock=clock,
            rng=random.Random(f"policies/{identity}"),  # noqa: S311 - jitter is no secret
            settings=reflector,
            on_settled=self._changed.set,
        )

    @property
    def faults(self) -> list[str]:
        """What is refused now, files first; each with its place."""
        of_objects = [
            f"RemediationPolicy {name}: {fault}"
            for name, judged in sorted(self.judged.items())
            for fault in judged.faults
        ]
        return [*map(str, self.problems), *of_objects]

    def warnings(self) -> list[Finding]:
        """Return what is odd about the policies in force, by themselves and in this cluster."""
        return [*findings(self.policies), *findings_in(self.policies, self._around())]

    async def run(self) -> None:
        """Watch and take over, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run(), name="watch-policies")
            if self._directory is not None:
                tasks.create_task(self._follow(self._directory), name="policy-files")
            while True:
                await self._changed.wait()
                self._changed.clear()
                if not self._watch.settled:
                    continue
                if self._watch.store:
                    await asyncio.sleep(_GATHER_S)
                    self._changed.clear()
                try:
                    self._take({key[1]: obj for key, obj in self._watch.store.items()})
                except Exception:
                    # No object, however odd, may end every replica: what was in force stays so.
                    log.exception("policies_broken")
                self.loaded.set()
                self._write.set()

    async def first(self, timeout_s: float) -> None:
        """Wait until what there was at first is in force; go on without it after the timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.loaded.wait()
        except TimeoutError:
            log.warning("policies_of_the_cluster_unknown", waited_s=timeout_s)

    async def tell(self, leads: Callable[[], bool]) -> None:
        """Keep the objects' status true, until cancelled; for the leader."""
        self._write.set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STATUS_EVERY_S):
                    await self._write.wait()
            self._write.clear()
            odd = self.warnings() if self._watch.store else []
            for key, obj in list(self._watch.store.items()):
                judged = self.judged.get(key[1])
                if judged is not None and leads():
                    of_it = [one for one in odd if one.policy == key[1]]
                    await self._tell(obj, judged, of_it)

    # --- files ------------------------------------------------------------------------------------

    async def _follow(self, directory: Path) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await self.look_at(directory)
            except Exception:
                log.exception("policy_files_broken")

    async def look_at(self, directory: Path) -> None:
        """Read the directory anew where anything about it is new."""
        seen = await asyncio.to_thread(_fingerprint, directory)
        if seen == self._seen_files:
            return
        reading = await asyncio.to_thread(read, directory)
        if await asyncio.to_thread(_fingerprint, directory) != seen:
            return  # it changed as it was read: the next look finds it whole
        self._seen_files = seen
        if reading.problems and reading.problems != self.problems:
            told = [str(problem) for problem in reading.problems[:_FAULTS_MAX]]
            log.warning("policies_refused", faults=told)
        self.problems = reading.problems
        bad = {problem.file for problem in reading.problems}
        good = {policy.name: policy for policy in reading.policies if policy.source not in bad}
        if str(directory) in bad:
            bad.update(policy.source for policy in self._of_files)  # nothing of it can be read
        for policy in self._of_files:
            if policy.source in bad:
                good.setdefault(policy.name, policy)
        self._of_files = list(good.values())
        self._changed.set()
        self._put_in_force()

    # --- objects ----------------------------------------------------------------------------------

    def _take(self, objects: Mapping[str, PolicyObject]) -> None:
        taken = {policy.name for policy in self._of_files}
        good: dict[str, Policy] = {}
        judged: dict[str, Judged] = {}
        for name, obj in objects.items():
            policy, faults = read_object(name, obj.spec)
            if name in taken:
                text = "a policy of the daemon's own files has this name"
                faults = [*faults, Problem(("metadata", "name"), text)]
            kept = self._of_objects.get(name) if faults else policy
            if kept is not None and name not in taken:
                good[name] = kept
            told = tuple(": ".join((dotted(one.path), one.text)) for one in faults[:_FAULTS_MAX])
            judged[name] = Judged(generation=obj.generation, faults=told, in_force=name in good)
            if told and told != getattr(self.judged.get(name), "faults", ()):
                log.warning("policy_refused", name=name, faults=told, kept=name in good)
        self._of_objects, self.judged = good, judged
        self._put_in_force()

    def _put_in_force(self) -> None:
        taken = {policy.name for policy in self._of_files}
        of_objects = [one for one in self._of_objects.values() if one.name not in taken]
        policies = tuple(in_order([*self._of_files, *of_objects]))
        if policies == self.policies:
            return
        self.policies = policies
        self.loaded_at = self._clock.now()
        log.info("policies_loaded", names=[policy.name for policy in policies])
        self._on_loaded()

    async def _tell(self, obj: PolicyObject, judged: Judged, odd: Sequence[Finding]) -> None:
        status = status_of(
            obj,
            judged.generation,
            faults=judged.faults,
            kept=judged.in_force,
            warnings=[f"{dotted(one.path)}: {one.text}" for one in odd],
            matched_at=self._matched_at(obj.name),
            now=self._clock.now(),
        )
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
            log.info("policy_status_not_written", name=obj.name, why=str(error))


def _fingerprint(directory: Path) -> tuple[object, ...]:
    """Return what changes whenever a file of the directory does, or what its links lead to."""
    found: list[object] = []
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError as error:
        return (type(error).__name__,)
    for name in names:
        path = directory / name
        if name.startswith(".") or path.suffix not in {".yaml", ".yml"}:
            continue
        try:
            seen = path.stat()
        except OSError:
            found.append((name, None))
            continue
        found.append((name, str(path.resolve()), seen.st_mtime_ns, seen.st_size, seen.st_ino))
    return tuple(found)


class _Changes:
    """The watch's sink: any change wakes the one who looks at all of them."""

    def __init__(self, changed: asyncio.Event) -> None:
        self._changed = changed

    def seen(self, obj: PolicyObject, old: PolicyObject | None, *, initial: bool) -> None:
        """Wake, where it is not only our own words that changed."""
        del initial
        if old is None or old.spec != obj.spec or old.uid != obj.uid:
            self._changed.set()

    def gone(self, obj: PolicyObject) -> None:
        """Wake."""
        del obj
        self._changed.set()

    def synced(self) -> None:
        """Wake."""
        self._changed.set()

    def progressed(self, at: float) -> None:
        """Ignore it: silence of this watch changes nothing."""
