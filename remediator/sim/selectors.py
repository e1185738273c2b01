"""Label and field selectors, parsed once per text (apimachinery ``labels`` and ``fields``)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from remediator.sim.problems import bad_request
from remediator.sim.resources import EVENTS, NAMESPACES, NODES, PODS, SECRETS, ResourceType

Predicate = Callable[[dict[str, Any]], bool]

_SET_TERM = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^()]*)\)$")
_COMPARE_TERM = re.compile(r"^([^\s!=<>]+)\s*(==|=|!=|>|<)\s*(\S*)$")
_EXISTS_TERM = re.compile(r"^(!?)\s*([^\s!=<>()]+)$")

# Fields that each kind's strategy selects on (kubernetes pkg/apis/*/v1/conversion.go and
# pkg/registry/*/strategy.go); every kind has metadata.name, namespaced ones metadata.namespace.
_FIELDS: dict[ResourceType, tuple[str, ...]] = {
    PODS: (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    NODES: ("spec.unschedulable",),
    NAMESPACES: ("status.phase",),
    SECRETS: ("type",),
    EVENTS: (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
}


class Selection:
    """What a list or a watch asks for: ``matches(obj)``; ``everything`` when it does not filter.

    ``pinned`` is a field and the one value it must have, where there is such a term: watches
    that are pinned are found by that value instead of asking each of them.
    """

    __slots__ = ("_predicates", "everything", "pinned")

    def __init__(
        self, predicates: tuple[Predicate, ...], pinned: tuple[str, str] | None = None
    ) -> None:
        self._predicates = predicates
        self.everything = not predicates
        self.pinned = pinned

    def matches(self, obj: dict[str, Any]) -> bool:
        """Return whether the object is selected."""
        return all(predicate(obj) for predicate in self._predicates)


@functools.lru_cache(maxsize=4096)
def selection(res: ResourceType, labels: str, fields: str) -> Selection:
    """Parse both selectors of a request. Raises Problem 400."""
    predicates: list[Predicate] = [
        functools.partial(_test_labels, test) for test in label_tests(labels)
    ]
    pinned: tuple[str, str] | None = None
    for path, negated, value in _field_terms(res, fields):
        predicates.append(functools.partial(_test_field, tuple(path.split(".")), negated, value))
        if not negated and path in ("metadata.name", "spec.nodeName"):
            pinned = (path, value)
    return Selection(tuple(predicates), pinned)


def label_tests(text: str) -> tuple[Callable[[Mapping[str, str]], bool], ...]:
    """Parse a label selector into tests that must all hold. Raises Problem 400."""
    return tuple(_label_test(term.strip()) for term in _split_terms(text))


def field_value(obj: Mapping[str, Any], path: tuple[str, ...]) -> str:
    """Return the field as selectors compare it: absent is empty, booleans in lower case."""
    value: Any = obj
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            return "false" if path == ("spec", "unschedulable") else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if path == ("source",) and isinstance(value, Mapping):
        return str(value.get("component", ""))
    return str(value)


def _split_terms(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    if not text.strip():
        return []
    return re.split(r",(?![^()]*\))", text)


def _label_test(term: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _SET_TERM.match(term):
        key, operator, listed = match.groups()
        values = frozenset(value.strip() for value in listed.split(","))
        return functools.partial(_test_set, key, operator == "notin", values)
    if match := _COMPARE_TERM.match(term):
        key, operator, value = match.groups()
        if operator in (">", "<"):
            return functools.partial(_test_order, key, operator, _integer(value))
        return functools.partial(_test_set, key, operator == "!=", frozenset((value,)))
    if match := _EXISTS_TERM.match(term):
        absent, key = match.groups()
        return functools.partial(_test_presence, key, absent == "!")
    raise bad_request(f'unable to parse requirement: found "{term}", expected a label selector')


def _test_set(
    key: str,
    negated: bool,  # noqa: FBT001 - bound by partial
    values: frozenset[str],
    labels: Mapping[str, str],
) -> bool:
    return (labels.get(key) in values) is not negated


def _test_presence(key: str, negated: bool, labels: Mapping[str, str]) -> bool:  # noqa: FBT001 - bound by partial
    return (key in labels) is not negated


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise bad_request(
            f"unable to parse requirement: values[0]: Invalid value: \"{text}\": for 'Gt', 'Lt' "
            "operators, the value must be an integer"
        ) from None


def _test_order(key: str, operator: str, bound: int, labels: Mapping[str, str]) -> bool:
    try:
        value = int(labels[key])
    except (KeyError, ValueError):
        return False
    return value > bound if operator == ">" else value < bound


def _field_terms(res: ResourceType, text: str) -> list[tuple[str, bool, str]]:
    known = ("metadata.name", *(("metadata.namespace",) if res.namespaced else ()))
    terms: list[tuple[str, bool, str]] = []
    for term in text.split(","):
        if not term.strip():
            continue
        match = re.match(r"^([^=!]+)(==|=|!=)(.*)$", term.strip())
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        path, operator, value = match.groups()
        if path not in known and path not in _FIELDS.get(res, ()):
            raise bad_request(
                f'field label not supported: "{path}"'
                if res.custom
                else f"field label not supported: {path}"
            )
        terms.append((path, operator == "!=", value))
    return terms


def _test_labels(test: Callable[[Mapping[str, str]], bool], obj: dict[str, Any]) -> bool:
    return test(obj["metadata"].get("labels") or {})


def _test_field(path: tuple[str, ...], negated: bool, value: str, obj: dict[str, Any]) -> bool:  # noqa: FBT001 - bound by partial
    return (field_value(obj, path) == value) is not negated
