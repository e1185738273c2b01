"""The rules that a node must obey to take a pod: what Kubernetes' scheduler filters by.

Each is a pure question about one node; which pods are where is the board's to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from remediator.engine.model import NodeFacts
from remediator.engine.pod_rules import (
    HOSTNAME,
    ZONE,
    NodeTerm,
    PodRules,
    PodTerm,
    Requirement,
    Toleration,
)

_EFFECTS = ("NoSchedule", "NoExecute")
_UNSCHEDULABLE = Toleration(key="node.kubernetes.io/unschedulable", effect="NoSchedule")

Taint = tuple[str, str, str]  # key, value, effect


class Place:
    """A node as the filters read it."""

    __slots__ = ("facts", "labels", "name", "taints", "zone")

    def __init__(self, facts: NodeFacts) -> None:
        self.facts = facts
        self.name = facts.name
        self.zone = facts.zone
        # These two are known of every node, whether somebody asked for the labels or not.
        self.labels: Mapping[str, str] = {
            HOSTNAME: facts.name,
            **({ZONE: facts.zone} if facts.zone else {}),
            **facts.labels,
        }
        self.taints = tuple(filter(_keeps_away, map(taint_of, facts.taints)))


def taint_of(text: str) -> Taint:
    """Read "key=value:Effect" or "key:Effect"."""
    left, _, effect = text.rpartition(":")
    key, _, value = left.partition("=")
    return key, value, effect


def _keeps_away(taint: Taint) -> bool:
    return taint[2] in _EFFECTS


def holds(requirement: Requirement, values: Mapping[str, str]) -> bool:
    """Whether an expression holds for these labels."""
    value = values.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            return _compares(requirement, value)
        case _:
            return False


def _compares(requirement: Requirement, value: str | None) -> bool:
    try:
        left, right = int(value or ""), int(requirement.values[0])
    except (ValueError, IndexError):
        return False
    return left > right if requirement.operator == "Gt" else left < right


def term_holds(term: NodeTerm, place: Place) -> bool:
    """Whether a node selector term holds; an empty one never does."""
    if not term.labels and not term.fields:
        return False
    name = {"metadata.name": place.name}
    return all(holds(each, place.labels) for each in term.labels) and all(
        holds(each, name) for each in term.fields
    )


def any_term_holds(terms: Iterable[NodeTerm], place: Place) -> bool:
    """Whether one of several alternatives holds."""
    return any(term_holds(term, place) for term in terms)


def selected(rules: PodRules, place: Place) -> bool:
    """Whether nodeSelector and required node affinity allow the node."""
    labels = place.labels
    if any(labels.get(key) != value for key, value in rules.node_selector):
        return False
    return rules.node_terms is None or any_term_holds(rules.node_terms, place)


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether one toleration covers one taint."""
    key, value, effect = taint
    if toleration.effect not in ("", effect) or toleration.key not in ("", key):
        return False
    return toleration.operator == "Exists" or toleration.value == value


def untolerated(rules: PodRules, place: Place) -> str:
    """Return the first taint of the node that these rules do not bear, or ""."""
    for taint in place.taints:
        if not any(tolerates(each, taint) for each in rules.tolerations):
            return taint[0]
    return ""


def bears_cordon(rules: PodRules) -> bool:
    """Whether the pod may go to a cordoned node."""
    taint = (_UNSCHEDULABLE.key, "", _UNSCHEDULABLE.effect)
    return any(tolerates(each, taint) for each in rules.tolerations)


def selects(term: PodTerm, home: str, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether a term of a pod in namespace ``home`` means a pod with these labels."""
    if term.none:
        return False
    if not term.everywhere and namespace not in (term.namespaces or (home,)):
        return False
    return all(holds(each, labels) for each in term.selector)


def static_refusal(rules: PodRules, place: Place) -> str:
    """Return which filter refuses the node whatever else runs where, or ""."""
    if place.facts.unschedulable and not bears_cordon(rules):
        return "cordoned"
    taint = untolerated(rules, place)
    if taint:
        return f"taint {taint}"
    if not selected(rules, place):
        return _selector_word(rules, place)
    return ""


def _selector_word(rules: PodRules, place: Place) -> str:
    """Name the first label of the selector that the node lacks: the CPU model is one of them."""
    for key, value in rules.node_selector:
        if place.labels.get(key) != value:
            if key.startswith(("cpu-model.", "cpu-model-migration.")):
                return f"CPU model {key.rpartition('/')[2]}"
            if key.startswith("cpu-feature."):
                return f"CPU feature {key.rpartition('/')[2]}"
            if key == "kubernetes.io/arch":
                return f"architecture {value}"
            return f"selector {key}={value}"
    return "node affinity"
