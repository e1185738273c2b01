"""Node selectors and pod (anti-)affinity terms, as the scheduler evaluates them."""

from __future__ import annotations

from collections.abc import Mapping

from remediator.sim.controllers.metadata import Obj, key_of, labels_of

HOSTNAME = "kubernetes.io/hostname"


def _expression_holds(expression: Obj, values: Mapping[str, str]) -> bool:
    present = expression["key"] in values
    value = values.get(expression["key"], "")
    wanted = expression.get("values") or []
    operator = expression["operator"]
    if operator == "In":
        return present and value in wanted
    if operator == "NotIn":
        return not present or value not in wanted
    if operator == "Exists":
        return present
    if operator == "DoesNotExist":
        return not present
    if operator in ("Gt", "Lt") and present and wanted:
        try:
            left, right = int(value), int(wanted[0])
        except ValueError:
            return False
        return left > right if operator == "Gt" else left < right
    return False


def term_matches(term: Obj, node: Obj) -> bool:
    """Return True when a NodeSelectorTerm matches; an empty term matches nothing."""
    expressions = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    labels = labels_of(node)
    name = {"metadata.name": key_of(node)[1]}
    return all(_expression_holds(e, labels) for e in expressions) and all(
        _expression_holds(f, name) for f in fields
    )


def node_selected(pod: Obj, node: Obj) -> bool:
    """Return True when the pod's nodeSelector and required node affinity allow the node."""
    spec = pod["spec"]
    labels = labels_of(node)
    for key, value in (spec.get("nodeSelector") or {}).items():
        if labels.get(key) != value:
            return False
    required = _node_affinity(pod).get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(term_matches(term, node) for term in required.get("nodeSelectorTerms") or ())


def preference(pod: Obj, node: Obj) -> int:
    """Return the sum of the weights of preferred node affinity terms that match."""
    preferred = _node_affinity(pod).get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return sum(each["weight"] for each in preferred if term_matches(each["preference"], node))


def required_anti_affinity(pod: Obj) -> list[Obj]:
    """Return the pod's required pod anti-affinity terms."""
    affinity = pod["spec"].get("affinity") or {}
    anti = affinity.get("podAntiAffinity") or {}
    terms: list[Obj] = anti.get("requiredDuringSchedulingIgnoredDuringExecution") or []
    return terms


def required_affinity(pod: Obj) -> list[Obj]:
    """Return the pod's required pod affinity terms."""
    affinity = pod["spec"].get("affinity") or {}
    together = affinity.get("podAffinity") or {}
    terms: list[Obj] = together.get("requiredDuringSchedulingIgnoredDuringExecution") or []
    return terms


def selector_matches(selector: Obj | None, labels: Mapping[str, str]) -> bool:
    """Return True when a LabelSelector matches; None matches nothing, an empty one everything."""
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    return all(_expression_holds(e, labels) for e in selector.get("matchExpressions") or ())


def volume_allows(volume: Obj, node: Obj) -> bool:
    """Return True when a PersistentVolume's required node affinity allows the node."""
    required = ((volume.get("spec") or {}).get("nodeAffinity") or {}).get("required")
    if not required:
        return True
    return any(term_matches(term, node) for term in required.get("nodeSelectorTerms") or ())


def _node_affinity(pod: Obj) -> Obj:
    affinity: Obj = pod["spec"].get("affinity") or {}
    found: Obj = affinity.get("nodeAffinity") or {}
    return found
