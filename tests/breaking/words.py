"""The engine alone under random evidence: thousands of seeds a minute, judged without its tables.

One node's planes lie, lag and contradict one another second by second, the leader changes at any
moment (with another clock), claims come and go, people give orders and the hands succeed, fail or
end late. What must hold, by the truth of the story and not by the verdict table:

* nothing is fenced of which fewer than two planes spoke in the last 30 s, nor while suspended,
* no VM is restarted on a proof whose boot was seen to renew since,
* once everything is well again, every incident ends, unless a human was told why it cannot.

    python tests/breaking/words.py FIRST LAST
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2])]

from remediator.engine.events import (
    CommandGiven,
    LeadershipGained,
    ObjectGone,
    ObjectSeen,
    OwnHealthSeen,
    SignalSeen,
    Verb,
)
from remediator.engine.model import (
    Cordon,
    FactKind,
    Fence,
    ForceStop,
    HandsOffFacts,
    OutcomeStatus,
    Plane,
    PowerOn,
    Reading,
    Release,
    Signal,
    Uncordon,
    node_subject,
    vantage_subject,
)
from tests.engine.conftest import POLICY, Cluster

NODE = "n1"
LATELY_S = 30.0


class World:
    """The truth about one node, and what each plane says of it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"words/{seed}")
        self.problems: list[str] = []
        self.acts: list[str] = []
        self.cluster = Cluster(policies=[POLICY])
        self.cluster.lead()
        self.cluster.add_vm("db", NODE)
        self.cluster.add_vm("web", NODE, claims=())
        self.boot = 1
        self.bad: dict[str, float] = {}  # plane -> when it last failed, whatever its reason
        self.power = Reading.UP
        self.reached = Reading.UP
        self.vantage_alive = True
        self.own_lag_s = 0.0
        self.orders = 0
        self.claimed = False
        self.claimed_at = 0.0
        self.suspended_before = False
        self.suspended_at = -1.0
        self.off = False  # the host, in truth
        self.heard_at = self.cluster.now  # last renewal that was told to this leader
        self.words: list[str] = []

    # --- a second ---------------------------------------------------------------------------------

    def second(self) -> None:
        cluster, rng = self.cluster, self.rng
        if self.power is not None and rng.random() < 0.5:
            told = Reading.DOWN if self.off and self.power is Reading.UP else self.power
            if told is not Reading.UP:
                self.bad["power"] = cluster.now
            cluster.power(NODE, told)
        if self.vantage_alive:
            reached = Reading.DOWN if self.off else self.reached
            if reached is not Reading.UP:
                self.bad["network"] = cluster.now
            self._say(vantage_subject("v"), Reading.UP)
            self._say(node_subject(NODE), reached)
            for number in range(2, 7):
                self._say(node_subject(f"n{number}"), Reading.UP)
        self.suspended_before = cluster.engine.context.evidence.own_health.suspended
        cluster.handle(OwnHealthSeen(loop_lag_s=self.own_lag_s))
        before = cluster.engine.context.evidence.leases.beats.get(NODE)
        before_at = before.at if before else 0.0
        if NODE in cluster.silent:
            self.bad["lease"] = cluster.now
        if NODE in cluster.handler_silent:
            self.bad["handler"] = cluster.now
        cluster.run(1)
        after = cluster.engine.context.evidence.leases.beats.get(NODE)
        if after is not None and after.live and after.at > before_at:
            self.heard_at = cluster.now
        if cluster.engine.context.evidence.own_health.suspended:
            self.suspended_at = cluster.now
        self._watch()
        if cluster.given_up:
            self.acts.append(f"{cluster.now:.0f} leadership is given up")
            self._leader()
            self.cluster.engine.context.home = self.rng.choice(("n3", NODE))

    def _say(self, subject, reading: Reading) -> None:
        signal = Signal(
            plane=Plane.NETWORK,
            source="v",
            zone="zone-0",
            subject=subject,
            reading=reading,
            at=self.cluster.now,
        )
        self.cluster.handle(SignalSeen(signal=signal))

    def _watch(self) -> None:
        """Judge what was begun, and answer some of it."""
        cluster = self.cluster
        for action in list(cluster.actions):
            key = (id(cluster), action.id)
            if key not in self.words:
                self.words.append(key)
                self._judge(action)
            if self.rng.random() < 0.6:
                self._answer(action)

    def _judge(self, action) -> None:
        now, work = self.cluster.now, action.work
        if isinstance(work, Fence) and not work.forced:
            if self.cluster.engine.context.home == NODE:
                self.problems.append(f"{now:.0f}: {action.id} of the leader's own node")
            lately = {plane for plane, at in self.bad.items() if now - at <= LATELY_S}
            if len(lately) < 2:
                self.problems.append(f"{now:.0f}: {action.id} though only {lately} failed")
            # Of a fence that began a second ago, before the trouble or the claim, nothing is said.
            if self.suspended_at == now and self.suspended_before:
                self.problems.append(f"{now:.0f}: {action.id} while suspended")
            if self.claimed and now - self.claimed_at > 1.0:
                self.problems.append(f"{now:.0f}: {action.id} while somebody else works on it")
        if isinstance(work, (Release, ForceStop)):
            alive = not self.off and self.heard_at > work.proof.at + 3.0
            same = work.proof.boot_id == f"boot-{NODE}-{self.boot}"
            if alive and same:
                self.problems.append(
                    f"{now:.0f}: {action.id} on {work.proof.kind} of {work.proof.at:.0f}, renewed "
                    f"at {self.heard_at:.0f}"
                )
        if isinstance(work, PowerOn) and self.claimed and action.incident:
            self.problems.append(f"{now:.0f}: {action.id} while somebody else works on it")

    def _answer(self, action) -> None:
        cluster, rng, work = self.cluster, self.rng, action.work
        status = rng.choice((OutcomeStatus.SUCCEEDED,) * 4 + (OutcomeStatus.FAILED,))
        if isinstance(work, Fence) and status is OutcomeStatus.SUCCEEDED:
            self._switch_off("fence")
        elif isinstance(work, PowerOn) and status is OutcomeStatus.SUCCEEDED:
            self._boot()
        elif isinstance(work, ForceStop):
            if status is OutcomeStatus.SUCCEEDED:
                cluster.drop_pods(work.vmi, NODE)
        elif isinstance(work, Uncordon) and self.off:
            status = OutcomeStatus.SPARED
        if action in cluster.actions:
            cluster.answer(action, status)
        if isinstance(work, ForceStop) and status is OutcomeStatus.SUCCEEDED:
            cluster.place(work.vmi, "n2")
            cluster.vmi(work.vmi, node="n2", phase="Running", agent=True)
        if not isinstance(work, (Cordon, Fence, Release, ForceStop, PowerOn, Uncordon)):
            self.problems.append(f"unexpected {work}")

    # --- what happens -----------------------------------------------------------------------------

    def act(self) -> None:
        rng, cluster = self.rng, self.cluster
        acts = {
            "lease silent": lambda: cluster.silent.add(NODE),
            "lease back": self._lease_back,
            "handler silent": lambda: cluster.handler_silent.add(NODE),
            "handler back": self._handler_back,
            "power off": lambda: setattr(self, "power", Reading.DOWN),
            "power on": lambda: setattr(self, "power", Reading.UP),
            "power unknown": lambda: setattr(self, "power", Reading.UNKNOWN),
            "unreached": lambda: setattr(self, "reached", Reading.DOWN),
            "reached": lambda: setattr(self, "reached", Reading.UP),
            "nobody probes": lambda: setattr(self, "vantage_alive", False),
            "probed": lambda: setattr(self, "vantage_alive", True),
            "own trouble": lambda: setattr(self, "own_lag_s", rng.choice((0.6, 1.1, 2.4, 3.0))),
            "no trouble": lambda: setattr(self, "own_lag_s", 0.0),
            "deaf": lambda: setattr(cluster, "watching", False),
            "hears": lambda: setattr(cluster, "watching", True),
            "dies": lambda: self._switch_off("it dies"),
            "boots": self._boot,
            "leader": self._leader,
            "claim": lambda: self._claim(on=True),
            "no claim": lambda: self._claim(on=False),
            "word": lambda: self._order(Verb.CONFIRM_OFF),
            "on": lambda: self._order(Verb.FENCE_ON),
            "off": lambda: self._order(Verb.FENCE_OFF),
        }
        name = rng.choice(sorted(acts))
        self.acts.append(f"{cluster.now:.0f} {name}")
        acts[name]()

    def _lease_back(self) -> None:
        if not self.off:
            self.cluster.silent.discard(NODE)

    def _handler_back(self) -> None:
        if not self.off:
            self.cluster.handler_silent.discard(NODE)

    def _switch_off(self, _why: str) -> None:
        self.off = True
        self.cluster.silent.add(NODE)
        self.cluster.handler_silent.add(NODE)

    def _boot(self) -> None:
        if not self.off:
            return
        self.off = False
        self.boot += 1
        self.cluster.silent.discard(NODE)
        self.cluster.handler_silent.discard(NODE)
        if self.rng.random() < 0.5:  # the lease may be renewed before the new boot is told
            self.cluster.beat(NODE)
        self.cluster.node_changes(NODE, boot_id=f"boot-{NODE}-{self.boot}")

    def _leader(self) -> None:
        before = self.cluster
        jump_s = self.rng.choice((0.0, 3.0, -600.0, 600.0))
        cluster = self.cluster = before.reborn()
        cluster.now += jump_s
        cluster.engine.context.home = self.rng.choice(("", "", "n2", NODE))
        self.bad = {plane: at + jump_s for plane, at in self.bad.items()}
        # Renewals that only the leader before has seen are nothing that this one could know.
        self.heard_at = -1.0
        old = before.engine.context.inventory
        for kind in (old.vms, old.vmis, old.pods):
            for facts in kind.values():
                cluster.handle(ObjectSeen(facts=facts))
        if self.claimed:
            self._claim(on=True)
        cluster.actions = []
        cluster._serial = before._serial
        cluster.handle(LeadershipGained(identity=f"me{self.rng.randint(1, 9)}", epoch=2))
        for facts in cluster.nodes.values():
            cluster.handle(ObjectSeen(facts=facts))
            cluster.beat(facts.name, first=True)
            cluster.beat(facts.name, plane=Plane.HANDLER, first=True)
        cluster.sync()

    def _claim(self, *, on: bool) -> None:
        if on and not self.claimed:
            self.claimed_at = self.cluster.now
        self.claimed = on
        facts = HandsOffFacts(name="NodeMaintenance:m", uid="m", node=NODE, why="maintenance")
        if on:
            self.cluster.handle(ObjectSeen(facts=facts))
        else:
            gone = ObjectGone(kind=FactKind.HANDS_OFF, name=facts.name, uid="m")
            self.cluster.handle(gone)

    def _order(self, verb: Verb) -> None:
        again = self.orders and self.rng.random() < 0.3
        self.orders += not again
        order = CommandGiven(
            id=f"o{self.orders}", verb=verb, target=NODE, by="ana", reason="the seed says so"
        )
        self.cluster.handle(order)
        self.acts.append(f"   {self.cluster.answers[-1].text}")

    # --- the end ----------------------------------------------------------------------------------

    def peace(self) -> None:
        """Everything is well again: so must the incident be, within twenty minutes."""
        cluster = self.cluster
        self.power = self.reached = Reading.UP
        self.vantage_alive, cluster.watching, self.own_lag_s = True, True, 0.0
        self._claim(on=False)
        self.off = True
        self._boot()
        self.acts.append(f"{cluster.now:.0f} peace")
        for _ in range(1500):
            self._boot()  # also after an order of before, carried out now
            self.second()
            state = self.cluster.engine.state
            if state.incident_on(node_subject(NODE)) is None and NODE not in state.residues:
                return
        state = self.cluster.engine.state
        incident = state.incident_on(node_subject(NODE))
        if incident is not None:
            last = [d for d in self.cluster.decisions if d.incident == incident.id][-1]
            self.problems.append(
                f"{incident.id} stays {incident.state}, {incident.row}: {last.why}"
            )
        if NODE in state.residues:
            self.problems.append(f"residue stays: {state.residues[NODE]}")


def play(seed: int) -> World:
    world = World(seed)
    for _ in range(world.rng.choice((4, 8, 16, 30))):
        world.act()
        for _ in range(world.rng.choice((0, 1, 1, 3, 8, 15, 40))):
            world.second()
    world.peace()
    return world


def main(first: int, last: int) -> None:
    bad = 0
    for seed in range(first, last):
        try:
            world = play(seed)
        except Exception as error:  # noqa: BLE001 - a finding like any other
            bad += 1
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            continue
        if world.problems:
            bad += 1
            print(f"seed {seed}: {world.problems[:4]}", flush=True)
            if last - first == 1:
                print("\n".join(world.acts))
                for each in world.cluster.decisions[-60:]:
                    done = each.action.id if each.action is not None else ""
                    print(round(each.at), each.kind, each.state, each.row, done, each.why[:140])
    print(f"{last - first} seeds from {first}, {bad} with problems", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
