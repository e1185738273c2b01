"""The course of the demo: cluster, daemon, fault, recovery, summary."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import msgspec
import yaml

from remediator.cli.demo_story import Story
from remediator.cli.demo_summary import print_summary
from remediator.cli.demo_view import Screen
from remediator.cli.entry import CommandError
from remediator.cli.http_source import HttpSource
from remediator.clock import Clock
from remediator.engine.chain import DecisionKind
from remediator.exit_codes import ExitCode
from remediator.journal.query import LIMIT_MAX, DecisionQuery
from remediator.sim.cluster import HttpFaces, SimCluster
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.probe_ports import ProbePorts
from remediator.sim.resources import NAMESPACES

# Not 10250: a machine may have a kubelet of its own, which listens on all addresses.
KUBELET_PORT = 18250
READY_S = 60.0  # importing kubernetes-asyncio, starting NATS, listing: 3 s on an idle machine
CALM_S = 11.0  # so that every lease has been seen renewed: before, it only was found
LOOK_EVERY_S = 0.25
STOP_S = 15.0
AFTERWARDS_S = 3.0


class Expectation(msgspec.Struct, frozen=True):
    """What the daemon is to make of a fault, and within what time."""

    limit_s: float
    recovers: bool  # its VMs are restarted elsewhere; otherwise nothing is fenced


EXPECTATIONS = {
    "power-loss": Expectation(150.0, recovers=True),
    "kernel-panic": Expectation(300.0, recovers=True),
    "partition": Expectation(300.0, recovers=True),
    "kubelet-hang": Expectation(150.0, recovers=False),
    "flapping": Expectation(120.0, recovers=False),
}


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The command's options."""

    nodes: int
    vms: int
    zones: int
    fault: str
    seed: int
    keep: bool
    plain: bool
    directory: Path | None


class Course:
    """One run of the demo."""

    def __init__(self, options: DemoOptions) -> None:
        self._options = options
        self._directory = options.directory or Path(tempfile.mkdtemp(prefix="remediator-demo-"))
        self._directory.mkdir(parents=True, exist_ok=True)
        self._log_file = self._directory / "daemon.log"

    async def run(self) -> int:
        """Run it; 0 when all ended as it should."""
        options = self._options
        spec = ClusterSpec(
            nodes=options.nodes,
            zones=options.zones,
            vms=options.vms,
            seed=options.seed,
            address_prefix="127",
            kubelet_port=KUBELET_PORT,
        )
        cluster = SimCluster(spec, clock=Clock(), hosts_over_http=True)
        faces = await cluster.http(self._directory / "kubeconfig")
        cluster.store.create(
            NAMESPACES,
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "remediator"}},
        )
        await cluster.start()
        screen = Screen(cluster, plain=options.plain)
        ports = ProbePorts(cluster.hosts)
        try:
            probed = _listen(ports)
            if not probed:
                screen.say("No host can be probed: this system has no addresses for them.")
            screen.say(
                f"A cluster of {options.nodes} nodes in {options.zones} zones runs "
                f"{options.vms} VMs at {faces.api_url}."
            )
            async with self._daemon(cluster, faces, probed=probed) as source:
                screen.say(f"The daemon leads, in enforce mode: {source.name}")
                story = await self._play(cluster, source, screen)
                good = print_summary(
                    story, cluster, await source.select(DecisionQuery(limit=LIMIT_MAX))
                )
                self._say_where_to_look(screen, source)
                if options.keep:
                    await self._keep(screen, source)
        finally:
            await ports.stop()
            await cluster.stop()
        return ExitCode.OK if good else ExitCode.FINDING

    async def _play(self, cluster: SimCluster, source: HttpSource, screen: Screen) -> Story:
        expected = EXPECTATIONS[self._options.fault]
        node = _busiest(cluster)
        story = Story(
            node=node,
            fault=self._options.fault,
            recovers=expected.recovers,
            victims=tuple(sorted(cluster.vms_on(node))),
        )
        with screen:
            screen.say(f"All is well; the fault comes in {CALM_S:g} s.")
            await self._look(cluster, source, screen, story, lambda: False, CALM_S)
            story.began_at = cluster.clock.now()
            _break(cluster, self._options.fault, node)
            screen.say(f"{self._options.fault} of {node}, which runs {len(story.victims)} VMs.")
            await self._look(cluster, source, screen, story, story.is_over, expected.limit_s)
            await self._look(cluster, source, screen, story, lambda: False, AFTERWARDS_S)
        return story

    async def _look(
        self,
        cluster: SimCluster,
        source: HttpSource,
        screen: Screen,
        story: Story,
        done: Callable[[], bool],
        limit_s: float,
    ) -> None:
        """Show what happens until ``done``, at most ``limit_s``."""
        end = cluster.clock.now() + limit_s
        while not done() and cluster.clock.now() < end:
            query = DecisionQuery(after_seq=story.seq, limit=LIMIT_MAX)
            for stored in sorted(await source.select(query), key=lambda one: one.seq):
                story.add(stored.decision)
                screen.decided(stored.decision, story)
            story.watch(cluster)
            screen.show(story)
            await asyncio.sleep(LOOK_EVERY_S)

    @contextlib.asynccontextmanager
    async def _daemon(
        self, cluster: SimCluster, faces: HttpFaces, *, probed: bool
    ) -> AsyncIterator[HttpSource]:
        """Run the daemon in its own process; yields its API once it leads."""
        config = self._write_config(cluster, faces, probed=probed)
        with self._log_file.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "remediator", "run", "--config", str(config)),
                stdout=log,
                stderr=log,
            )
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0)) as session:
                source = HttpSource(session, await self._ready(process))
                await self._leading(source, process)
                yield source
        finally:
            await _end(process)

    def _write_config(self, cluster: SimCluster, faces: HttpFaces, *, probed: bool) -> Path:
        password = self._directory / "bmc-password"
        password.touch(mode=0o600)
        password.write_text(cluster.spec.bmc_password)
        config = {
            "mode": "enforce",
            "identity": "demo",
            "data_dir": str(self._directory / "data"),
            "kube": {"kubeconfig": str(faces.kubeconfig)},
            "http": {"port": 0},
            "log": {"format": "json"},
            # The loopback would answer echo requests for dead hosts.
            "probes": {"enabled": probed, "icmp": False},
            "fence": {
                "devices": [
                    {
                        "type": "redfish",
                        "name": "bmc",
                        "endpoint": faces.bmc_url,
                        "username": cluster.spec.bmc_user,
                        "password_file": str(password),
                    }
                ]
            },
        }
        file = self._directory / "config.yaml"
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        return file

    async def _ready(self, process: asyncio.subprocess.Process) -> str:
        """Wait for the log line that names the port of the daemon's API."""
        deadline = asyncio.get_running_loop().time() + READY_S
        while asyncio.get_running_loop().time() < deadline:
            self._check_alive(process)
            for line in self._log_file.read_bytes().splitlines():
                if b'"http_listening"' in line:
                    return f"http://127.0.0.1:{msgspec.json.decode(line)['port']}"
            await asyncio.sleep(LOOK_EVERY_S)
        raise CommandError(ExitCode.NO_DAEMON, f"the daemon did not start: see {self._log_file}")

    async def _leading(self, source: HttpSource, process: asyncio.subprocess.Process) -> None:
        deadline = asyncio.get_running_loop().time() + READY_S
        query = DecisionQuery(kind=DecisionKind.LEADING, limit=1)
        while asyncio.get_running_loop().time() < deadline:
            self._check_alive(process)
            if await source.select(query):
                return
            await asyncio.sleep(LOOK_EVERY_S)
        raise CommandError(ExitCode.NO_DAEMON, f"the daemon does not lead: see {self._log_file}")

    def _check_alive(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            last = self._log_file.read_text(errors="replace").strip().splitlines()[-1:]
            raise CommandError(
                ExitCode.NO_DAEMON,
                f"the daemon ended with {process.returncode}: {' '.join(last)[:500]}",
            )

    def _say_where_to_look(self, screen: Screen, source: HttpSource) -> None:
        where = (
            f"--server {source.name}"
            if self._options.keep
            else f"--db {self._directory / 'data' / 'journal.sqlite'}"
        )
        screen.say("Look further:", f"  .venv/bin/remediator decisions list {where}")
        screen.say("", f"  the daemon's log: {self._log_file}")

    async def _keep(self, screen: Screen, source: HttpSource) -> None:
        screen.say("Everything runs on", f"({source.name}, Ctrl-C ends it).")
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, stopped.set)
        await stopped.wait()


def _listen(ports: ProbePorts) -> bool:
    """Let the hosts answer probes; False where this system lacks addresses for them."""
    try:
        ports.start()
    except OSError:
        return False
    return True


def _busiest(cluster: SimCluster) -> str:
    """Return the worker that runs the most VMs; the first of them by name."""
    workers = [host.name for host in cluster.hosts.values() if not host.spec.control_plane]
    return max(workers, key=lambda name: (len(cluster.vms_on(name)), name))


def _break(cluster: SimCluster, fault: str, node: str) -> None:
    faults = cluster.faults
    match fault:
        case "power-loss":
            faults.power_loss(node)
        case "kernel-panic":
            faults.kernel_panic(node)
        case "partition":
            faults.partition(node)
        case "kubelet-hang":
            faults.kubelet_hang(node)
        case "flapping":
            faults.flap(node, period_s=20.0, times=4)
        case _:
            raise AssertionError(f"no such fault: {fault}")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
