"""What a pod asks of the node that it goes to: requests, selectors, affinities, tolerations.

The words of Kubernetes' pod spec, narrowed to what a scheduler must obey. All of them are hashable:
thousands of pods share a few sets of rules, and each set is kept once.
"""

from __future__ import annotations

import msgspec

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
REGION = "topology.kubernetes.io/region"


class Piece(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Base of the parts: compared and hashed by value, on the wire only where it says something."""


class Requirement(Piece, frozen=True, kw_only=True):
    """One expression over labels: In, NotIn, Exists, DoesNotExist, and of nodes Gt and Lt."""

    key: str
    operator: str = "In"
    values: tuple[str, ...] = ()


class NodeTerm(Piece, frozen=True, kw_only=True):
    """Expressions over a node's labels and fields that must all hold. An empty one holds never."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()


class Toleration(Piece, frozen=True, kw_only=True):
    """A taint that the pod bears. An empty key bears every key, an empty effect every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class PodTerm(Piece, frozen=True, kw_only=True):
    """Pods beside which this one must, or must not, be: within one value of ``topology_key``."""

    topology_key: str
    selector: tuple[Requirement, ...] = ()  # empty: every pod
    none: bool = False  # it has no selector: it means no pod at all
    namespaces: tuple[str, ...] = ()  # empty: the pod's own
    everywhere: bool = False  # every namespace


class Spread(Piece, frozen=True, kw_only=True):
    """A topologySpreadConstraint that must hold (DoNotSchedule)."""

    topology_key: str
    max_skew: int = 1
    selector: tuple[Requirement, ...] = ()
    none: bool = False
    min_domains: int = 1


class PodRules(Piece, frozen=True, kw_only=True):
    """Every rule of a pod that binds a scheduler.

    ``node_terms`` are alternatives; None where there is no required node affinity. ``unjudged``
    names the rules that cannot be judged from here: they forbid nothing, and every answer that
    leans on this pod says so.
    """

    node_selector: tuple[tuple[str, str], ...] = ()
    node_terms: tuple[NodeTerm, ...] | None = None
    affinity: tuple[PodTerm, ...] = ()
    anti_affinity: tuple[PodTerm, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    spread: tuple[Spread, ...] = ()
    unjudged: tuple[str, ...] = ()

    @property
    def node_keys(self) -> frozenset[str]:
        """The labels of nodes that these rules ask for."""
        keys = {key for key, _ in self.node_selector}
        keys.update(each.key for term in self.node_terms or () for each in term.labels)
        keys.update(term.topology_key for term in (*self.affinity, *self.anti_affinity))
        keys.update(each.topology_key for each in self.spread)
        return frozenset(keys)

    @property
    def pod_keys(self) -> frozenset[str]:
        """The labels of pods that these rules ask for."""
        terms = (*self.affinity, *self.anti_affinity)
        keys = {each.key for term in terms for each in term.selector}
        keys.update(each.key for spread in self.spread for each in spread.selector)
        return frozenset(keys)


NodeRules = tuple[tuple[tuple[str, str], ...], tuple[NodeTerm, ...] | None, tuple[Toleration, ...]]


def node_rules(rules: PodRules) -> NodeRules:
    """Return the part of the rules that a node answers by itself, as a key."""
    return rules.node_selector, rules.node_terms, rules.tolerations


def handle(selector: tuple[Requirement, ...]) -> tuple[str, str]:
    """Return a label that every pod must have that the selector means; ("", "") if it names none.

    Pods and terms are indexed by it: one label of one value is what nearly all selectors ask for.
    """
    for each in selector:
        if each.operator == "In" and len(each.values) == 1:
            return each.key, each.values[0]
    return "", ""


NO_RULES = PodRules()


class PodNeeds(Piece, frozen=True, kw_only=True):
    """What a pod takes on its node, its overhead included, and what it asks of it."""

    cpu_m: int = 0  # millicores
    memory: int = 0  # bytes
    extra: tuple[tuple[str, int], ...] = ()  # other resources: hugepages, GPUs, …
    rules: PodRules = NO_RULES


NO_NEEDS = PodNeeds()
