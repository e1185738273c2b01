"""The demo on a terminal: a live picture, or plain lines where there is none."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from remediator.cli.demo_story import Story
from remediator.engine.chain import Decision
from remediator.engine.incidents import Stage
from remediator.sim.cluster import SimCluster
from remediator.sim.hosts.host import Host

LAST_DECISIONS = 8


class Screen:
    """Shows the course of the demo."""

    def __init__(self, cluster: SimCluster, *, plain: bool) -> None:
        self._cluster = cluster
        self._console = Console(highlight=False, soft_wrap=True)
        self._live: Live | None = None
        if self._console.is_terminal and not plain:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._decided: list[str] = []

    def __enter__(self) -> Self:
        """Begin the live picture, if there is one."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        if self._live is not None:
            self._live.stop()

    def say(self, *parts: str) -> None:
        """Print one line, above the live picture."""
        self._console.print(" ".join(part for part in parts if part), markup=False)

    def decided(self, decision: Decision, story: Story) -> None:
        """Show one decision."""
        since = decision.at - story.began_at if story.began_at else 0.0
        line = f"{since:+7.1f} s  {decision.kind:<9} {decision.subject!s:<20} {decision.why}"
        self._decided = [*self._decided, line][-LAST_DECISIONS:]
        if self._live is None:
            self.say(line)

    def show(self, story: Story) -> None:
        """Draw the picture of this moment."""
        if self._live is not None:
            self._live.update(self._picture(story), refresh=True)

    def _picture(self, story: Story) -> Group:
        since = self._cluster.clock.now() - story.began_at if story.began_at else None
        title = "before the fault" if since is None else f"{since:.1f} s after the {story.fault}"
        down = [vm for vm in self._cluster.vms if not self._cluster.ledger.is_up(vm)]
        facts = Table.grid(padding=(0, 3))
        facts.add_row("incident", f"{story.node} {story.verdict} ({story.state})".strip())
        waiting = sum(times.stage in ("down", Stage.WAITING) for times in story.vms.values())
        facts.add_row(
            "VMs not up",
            f"{len(down)} of {len(self._cluster.vms)} ({waiting if story.began_at else 0} wait)",
        )
        facts.add_row(
            "boots running",
            f"{self._cluster.ledger.booting} (peak {self._cluster.ledger.peak_booting})",
        )
        facts.add_row("double runs", str(len(self._cluster.ledger.double_runs)))
        return Group(
            Panel(self._nodes(story), title=f"nodes, {title}", title_align="left"),
            Panel(facts, title="recovery", title_align="left"),
            Panel(
                Text("\n".join(self._decided) or "none yet", overflow="ellipsis", no_wrap=True),
                title="decisions",
                title_align="left",
            ),
        )

    def _nodes(self, story: Story) -> Table:
        """Return one row per zone."""
        zones: dict[str, list[Host]] = {}
        for host in self._cluster.hosts.values():
            zones.setdefault(host.spec.zone, []).append(host)
        table = Table.grid(padding=(0, 2))
        for zone, hosts in sorted(zones.items()):
            cells = [Text(zone, style="bold")]
            for host in hosts:
                running = len(self._cluster.vms_on(host.name))
                lost = host.name == story.node and story.began_at > 0
                style = "bold red" if lost else "green"
                cells.append(Text(f"{host.name} {running:>2}", style=style))
            table.add_row(*cells)
        return table
