"""What the NATS subject of a signal says, checked once per subject.

A plane speaks of certain kinds of subjects and gives certain readings; both are data here, the
schema that is published is made of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from remediator.bus import subjects
from remediator.engine.model import Plane, Reading, Subject
from remediator.signals.refusal import Refusal, RefusedError

_ANY: Final = (Reading.UP, Reading.DOWN, Reading.UNKNOWN)

# Plane -> kind of subject -> readings. On plane lease silence is what counts, so there is nothing
# but beats; a vantage point that is down cannot say so.
RULES: Final[Mapping[Plane, Mapping[str, tuple[Reading, ...]]]] = MappingProxyType(
    {
        Plane.LEASE: {"node": (Reading.UP,)},
        Plane.KUBELET: {"node": _ANY},
        Plane.HANDLER: {"node": _ANY},
        Plane.NETWORK: {"node": _ANY, "vantage": (Reading.UP, Reading.UNKNOWN)},
        Plane.STORAGE: {"node": _ANY, "vm": _ANY},
        Plane.POWER: {"node": _ANY},
        Plane.MACHINE: {"node": _ANY},
        Plane.GUEST: {"vm": _ANY},
    }
)

# Kubernetes' names (apimachinery: IsDNS1123Subdomain, IsDNS1123Label).
_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
NAMESPACE: Final = _LABEL
NAMESPACE_LENGTH_MAX: Final = 63
# A vantage point is no object: any name that a subject can carry.
VANTAGE: Final = subjects.NAME

_subdomain = re.compile(SUBDOMAIN, re.ASCII)
_namespace = re.compile(NAMESPACE, re.ASCII)
_vantage = re.compile(VANTAGE, re.ASCII)
_planes: Final = MappingProxyType({plane.value: plane for plane in Plane})

_TOKENS_MIN, _TOKENS_MAX = 5, 7  # remediator.signal.PLANE.KIND.NAME[.SOURCE[.ASPECT]]


class Address(msgspec.Struct, frozen=True, gc=False):
    """What a signal's NATS subject names. ``source`` and ``aspect`` are tokens, "" if not there."""

    plane: Plane
    plane_name: str  # hashed once, where an enumeration's member is hashed each time
    subject: Subject
    readings: tuple[Reading, ...]
    source: str
    aspect: str
    key: int  # a hash of plane and subject


def parse(nats_subject: str) -> Address:
    """Return what a NATS subject under ``remediator.signal`` or ``remediator.heartbeat`` names.

    Raises RefusedError.
    """
    tokens = nats_subject.split(".")
    if not _TOKENS_MIN <= len(tokens) <= _TOKENS_MAX:
        raise RefusedError(
            Refusal.BAD_SUBJECT, "a subject ends in PLANE.KIND.NAME[.SOURCE[.ASPECT]]"
        )
    plane_word, kind, where, *tail = tokens[2:]
    plane = _planes.get(plane_word)
    if plane is None:
        raise RefusedError(Refusal.UNKNOWN_PLANE, f"there is no plane {plane_word[:64]!r}")
    readings = RULES[plane].get(kind)
    if readings is None:
        raise RefusedError(
            Refusal.WRONG_KIND,
            f"plane {plane} speaks of {' or '.join(RULES[plane])}, not of {kind[:64]!r}",
        )
    namespace, name = subjects.subject_name(where)
    _check_name(kind, namespace, name)
    source, aspect = (*tail, "", "")[:2]
    key = hash((plane.value, kind, namespace, name))
    about = Subject(kind, name, namespace)
    return Address(plane, plane.value, about, readings, source, aspect, key)


def _check_name(kind: str, namespace: str, name: str) -> None:
    """See that a subject's name is one. Raises RefusedError."""
    rule = _vantage if kind == "vantage" else _subdomain
    if len(name) > subjects.NAME_LENGTH_MAX or not rule.fullmatch(name):
        raise RefusedError(Refusal.BAD_NAME, f"{name[:80]!r} is no name of a {kind}")
    if kind != "vm":
        if namespace:
            raise RefusedError(Refusal.BAD_NAME, f"a {kind} has no namespace")
    elif len(namespace) > NAMESPACE_LENGTH_MAX or not _namespace.fullmatch(namespace):
        raise RefusedError(Refusal.BAD_NAME, f"{namespace[:80]!r} is no namespace of a vm")
