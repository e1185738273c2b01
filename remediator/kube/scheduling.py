"""The parts of a pod spec that bind a scheduler, decoded into the rules that placement reads.

Thousands of pods carry the same selectors, affinities and tolerations, byte for byte. They are
read once: what is decoded is the pod's bytes of them, looked up among those known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import structlog

from remediator.engine.pod_rules import (
    NO_RULES,
    NodeTerm,
    PodNeeds,
    PodRules,
    PodTerm,
    Requirement,
    Spread,
    Toleration,
)
from remediator.kube.metadata import KubeStruct, shared
from remediator.kube.quantities import millis, whole

_log = structlog.get_logger(__name__)

# KubeVirt gives each node a thousand of each: pods run out long before.
_PLENTY = ("devices.kubevirt.io/", "attachable-volumes-")
_PLAIN = ("cpu", "memory", "pods")
# A migration's target must not go to its source, nor to a host of another model: rules of that one
# migration, not of the VM.
_OF_MIGRATIONS = ("cpu-model-migration.node.kubevirt.io/", "host-model-")
_CREATED_BY = "kubevirt.io/created-by"
_RULES_MAX = 8192  # sets of rules that are kept; then all are read anew

Amounts = Mapping[str, str | int | float]


class _Requirement(KubeStruct, frozen=True):
    key: str = ""
    operator: str = "In"
    values: tuple[str, ...] | None = None

    def made(self) -> Requirement:
        values = tuple(shared(value) for value in self.values or ())
        return Requirement(key=shared(self.key), operator=self.operator, values=values)


class _NodeTerm(KubeStruct, frozen=True):
    match_expressions: tuple[_Requirement, ...] | None = None
    match_fields: tuple[_Requirement, ...] | None = None

    def made(self) -> NodeTerm:
        return NodeTerm(
            labels=tuple(each.made() for each in self.match_expressions or ()),
            fields=tuple(each.made() for each in self.match_fields or ()),
        )


class _NodeSelector(KubeStruct, frozen=True):
    node_selector_terms: tuple[_NodeTerm, ...] | None = None


class _Selector(KubeStruct, frozen=True):
    match_labels: dict[str, str] | None = None
    match_expressions: tuple[_Requirement, ...] | None = None

    def made(self) -> tuple[Requirement, ...]:
        plain = sorted((self.match_labels or {}).items())
        return (
            *(Requirement(key=shared(key), values=(shared(value),)) for key, value in plain),
            *(each.made() for each in self.match_expressions or ()),
        )


class _PodTerm(KubeStruct, frozen=True):
    topology_key: str = ""
    label_selector: _Selector | None = None
    namespaces: tuple[str, ...] | None = None
    namespace_selector: _Selector | None = None
    match_label_keys: tuple[str, ...] | None = None
    mismatch_label_keys: tuple[str, ...] | None = None

    def unjudged(self) -> str:
        """Name what of it cannot be judged from here; the labels of namespaces are not watched."""
        if self.namespace_selector is not None and self.namespace_selector.made():
            return "namespaceSelector"
        if self.match_label_keys or self.mismatch_label_keys:
            return "matchLabelKeys"
        return ""

    def made(self) -> PodTerm:
        return PodTerm(
            topology_key=shared(self.topology_key),
            selector=self.label_selector.made() if self.label_selector is not None else (),
            none=self.label_selector is None,
            namespaces=tuple(sorted(self.namespaces or ())),
            everywhere=self.namespace_selector is not None,
        )


class _NodeAffinity(KubeStruct, frozen=True):
    required: _NodeSelector | None = msgspec.field(
        default=None, name="requiredDuringSchedulingIgnoredDuringExecution"
    )


class _PodAffinity(KubeStruct, frozen=True):
    required: tuple[_PodTerm, ...] | None = msgspec.field(
        default=None, name="requiredDuringSchedulingIgnoredDuringExecution"
    )


class _Affinity(KubeStruct, frozen=True):
    node_affinity: _NodeAffinity | None = None
    pod_affinity: _PodAffinity | None = None
    pod_anti_affinity: _PodAffinity | None = None


class _Toleration(KubeStruct, frozen=True):
    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None

    def made(self) -> Toleration:
        return Toleration(
            key=self.key or "",
            operator=self.operator or "Equal",
            value=self.value or "",
            effect=self.effect or "",
        )


class _Spread(KubeStruct, frozen=True):
    topology_key: str = ""
    max_skew: int = 1
    when_unsatisfiable: str = "DoNotSchedule"
    label_selector: _Selector | None = None
    min_domains: int | None = None
    match_label_keys: tuple[str, ...] | None = None
    node_affinity_policy: str | None = None
    node_taints_policy: str | None = None

    def unjudged(self) -> str:
        if self.match_label_keys:
            return "matchLabelKeys"
        if self.node_affinity_policy == "Ignore" or self.node_taints_policy == "Honor":
            return "topologySpreadConstraints with policies"
        return ""

    def made(self) -> Spread:
        return Spread(
            topology_key=shared(self.topology_key),
            max_skew=self.max_skew,
            selector=self.label_selector.made() if self.label_selector is not None else (),
            none=self.label_selector is None,
            min_domains=self.min_domains or 1,
        )


class Resources(KubeStruct, frozen=True):
    """``resources`` of a container, narrowed."""

    requests: dict[str, str | int | float] | None = None


class Container(KubeStruct, frozen=True):
    """A container as the scheduler counts it. ``restart_policy`` Always: a sidecar."""

    resources: Resources | None = None
    restart_policy: str | None = None


_selector_decoder = msgspec.json.Decoder(dict[str, str] | None)
_affinity_decoder = msgspec.json.Decoder(_Affinity | None)
_tolerations_decoder = msgspec.json.Decoder(tuple[_Toleration, ...] | None)
_spread_decoder = msgspec.json.Decoder(tuple[_Spread, ...] | None)

_RawRules = tuple[bytes, bytes, bytes, bytes]
_known: dict[_RawRules, PodRules] = {}


def rules_of(
    node_selector: msgspec.Raw,
    affinity: msgspec.Raw,
    tolerations: msgspec.Raw,
    spread: msgspec.Raw,
) -> PodRules:
    """Return the rules that these four fields of a pod spec hold; none where they are malformed."""
    raw = (bytes(node_selector), bytes(affinity), bytes(tolerations), bytes(spread))
    found = _known.get(raw)
    if found is None:
        try:
            found = _read(raw)
        except msgspec.MsgspecError as error:  # of an API server: it validates what it stores
            _log.warning("scheduling_rules_unreadable", error=str(error))
            found = NO_RULES
        if len(_known) >= _RULES_MAX:
            _known.clear()
        _known[raw] = found
    return found


def _read(raw: _RawRules) -> PodRules:
    selector_text, affinity_text, tolerations_text, spread_text = raw
    selector = (_selector_decoder.decode(selector_text) if selector_text else None) or {}
    affinity = (_affinity_decoder.decode(affinity_text) if affinity_text else None) or _Affinity()
    tolerations = (
        _tolerations_decoder.decode(tolerations_text) if tolerations_text else None
    ) or ()
    spread = (_spread_decoder.decode(spread_text) if spread_text else None) or ()
    required = affinity.node_affinity.required if affinity.node_affinity else None
    beside = (affinity.pod_affinity.required if affinity.pod_affinity else None) or ()
    apart = (affinity.pod_anti_affinity.required if affinity.pod_anti_affinity else None) or ()
    hard = [each for each in spread if each.when_unsatisfiable == "DoNotSchedule"]
    unjudged = {each.unjudged() for each in (*beside, *apart, *hard)} - {""}
    return PodRules(
        node_selector=tuple(
            (shared(key), shared(value))
            for key, value in sorted(selector.items())
            if not key.startswith(_OF_MIGRATIONS)
        ),
        node_terms=_terms(required),
        affinity=tuple(each.made() for each in beside if not each.unjudged()),
        anti_affinity=tuple(
            each.made() for each in apart if not each.unjudged() and not _of_a_migration(each)
        ),
        tolerations=tuple(each.made() for each in tolerations),
        spread=tuple(each.made() for each in hard if not each.unjudged()),
        unjudged=tuple(sorted(unjudged)),
    )


def _of_a_migration(term: _PodTerm) -> bool:
    labels = (term.label_selector.match_labels if term.label_selector else None) or {}
    return _CREATED_BY in labels


def _terms(required: _NodeSelector | None) -> tuple[NodeTerm, ...] | None:
    if required is None:
        return None
    return tuple(term.made() for term in required.node_selector_terms or ())


def needs_of(
    containers: Iterable[Container] | None,
    init_containers: Iterable[Container] | None,
    overhead: Amounts | None,
    rules: PodRules,
) -> PodNeeds:
    """Return what a pod takes: as the scheduler counts it (resource/helpers.go PodRequests).

    All containers and sidecars together, or the one init container that takes more, with the
    sidecars that run by then; and the overhead of its runtime class.
    """
    total: dict[str, int] = {}
    for container in containers or ():
        _add(total, amounts(_requests(container)))
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in init_containers or ():
        asked = amounts(_requests(container))
        if container.restart_policy == "Always":
            _add(total, asked)
            _add(sidecars, asked)
            asked = dict(sidecars)
        else:
            _add(asked, sidecars)
        for name, amount in asked.items():
            peak[name] = max(peak.get(name, 0), amount)
    for name, amount in peak.items():
        total[name] = max(total.get(name, 0), amount)
    _add(total, amounts(overhead))
    return PodNeeds(
        cpu_m=total.get("cpu", 0),
        memory=total.get("memory", 0),
        extra=tuple(sorted(beyond(total).items())),
        rules=rules,
    )


def amounts(given: Amounts | None) -> dict[str, int]:
    """Return resources as whole numbers: CPU in millicores, all others in their own unit."""
    return {
        shared(name): millis(amount) if name == "cpu" else whole(amount)
        for name, amount in (given or {}).items()
    }


def beyond(total: Mapping[str, int]) -> dict[str, int]:
    """Return the resources besides CPU, memory and pods that can run out, where there are any."""
    return {
        name: amount
        for name, amount in total.items()
        if amount and name not in _PLAIN and not name.startswith(_PLENTY)
    }


def _requests(container: Container) -> Amounts | None:
    return container.resources.requests if container.resources is not None else None


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount
