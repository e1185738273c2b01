"""Names on the bus: one subject per thing observed, so that "newest per subject" means something.

A NATS subject is a list of tokens divided by dots; a Kubernetes name may hold dots. ``.`` becomes
``_``, which is never legal in a Kubernetes object name, so it reverses without an escape. A
namespaced subject of a signal is one token ``namespace/name``: ``/`` is in no Kubernetes name.
"""

from __future__ import annotations

import re

PREFIX = "remediator"

HEARTBEATS_FILTER = f"{PREFIX}.heartbeat.>"
INVENTORY_FILTER = f"{PREFIX}.inventory.>"
SIGNALS_FILTER = f"{PREFIX}.signal.>"
DECISIONS_FILTER = f"{PREFIX}.decision.>"
DEAD_LETTERS_FILTER = f"{PREFIX}.dead-letter.>"
NODES_FILTER = f"{PREFIX}.inventory.Node.>"

# Not stored in any stream: whoever is not there to hear it has no use for it later.
ASK_PROBES = f"{PREFIX}.ask.probes"  # body: {"node": NAME}; every vantage point listens
PACE = f"{PREFIX}.pace"  # body: admission.state.AdmissionState; every replica listens
ORDER = f"{PREFIX}.order"  # request and reply; only the leader answers
QUERY_FENCE = f"{PREFIX}.query.fence"  # the same
QUERY_HEALTH = f"{PREFIX}.query.health"  # request and reply; only the leader answers

CLUSTER_SCOPED = (
    "_"  # stands for "no namespace"; decoded it would be ".", which no object is called
)

# A DNS-1123 subdomain, the longest kind of Kubernetes name (apimachinery's
# DNS1123SubdomainMaxLength).
NAME_LENGTH_MAX = 253

# Printable ASCII without what NATS reads as structure (space, "*", ">"), without "_" (our encoding
# of a dot) and without "/" (our divider of namespace and name).
NAME = r"[!-)+-.0-=?-^`-~]+"
_NAME = re.compile(NAME, re.ASCII)
_NO_NAME = re.compile(r"[^!-)+-.0-=?-^`-~]", re.ASCII)
_DEAD_TOKENS_MAX = 8
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9-]*", re.ASCII)


PROGRESS = f"{PREFIX}.heartbeat.progress."
_MARKERS = (f"{PREFIX}.inventory.synced.", PROGRESS)
_SIGNALS = (f"{PREFIX}.signal.", f"{PREFIX}.heartbeat.")


class SubjectNameError(ValueError):
    """A name that cannot be written as a subject token."""


def token(name: str) -> str:
    """Encode one Kubernetes name as one subject token. Raises SubjectNameError."""
    if not name:
        raise SubjectNameError("a name on the bus may not be empty")
    if len(name) > NAME_LENGTH_MAX:
        raise SubjectNameError(
            f"name {name[:20]!r}... has {len(name)} characters, more than {NAME_LENGTH_MAX}"
        )
    if not _NAME.fullmatch(name):
        raise SubjectNameError(f"name {name!r} holds a character that no Kubernetes name has")
    return name.replace(".", "_")


def name_of(encoded: str) -> str:
    """Decode a token made by ``token``."""
    return encoded.replace("_", ".")


def tail_token(text: str) -> str:
    """Encode a source or an aspect, which may be any words, as one subject token.

    ``.`` becomes ``_`` as in names; what no name may hold becomes ``-``. It only keeps subjects
    apart and is never decoded: the document says who the source is. Raises SubjectNameError.
    """
    return token(_NO_NAME.sub("-", text))


def heartbeat(
    plane: str, kind: str, name: str, namespace: str = "", *, source: str = "", aspect: str = ""
) -> str:
    """Return the subject of a repeated proof of life on one plane.

    Where several sources speak of one object (vantage points), or one source of several aspects of
    it, each has a subject of its own: only the newest message per subject is kept.
    """
    where = _subject_token(name, namespace)
    return f"{PREFIX}.heartbeat.{_word(plane)}.{_word(kind)}.{where}{_tail(source, aspect)}"


def watch_progress(watch: str, by: str = "") -> str:
    """Return the subject of a watch's progress marker, stored behind the beats it covers.

    It ends in the name of the process whose watch it is: nobody else's message takes its place.
    """
    return f"{PROGRESS}watch.{_word(watch)}{_tail(by, '')}"


def inventory(kind: str, name: str, namespace: str = "") -> str:
    """Return the subject of one object's newest facts."""
    where = token(namespace) if namespace else CLUSTER_SCOPED
    return f"{PREFIX}.inventory.{_word(kind)}.{where}.{token(name)}"


def inventory_synced(kind: str) -> str:
    """Return the subject of the marker "every object of this kind has been reported"."""
    return f"{PREFIX}.inventory.synced.{_word(kind)}"


def signal(
    plane: str, kind: str, name: str, namespace: str = "", *, source: str = "", aspect: str = ""
) -> str:
    """Return the subject of a change of state on one plane; its end as in ``heartbeat``.

    The publisher, too, keeps only the newest per subject while NATS is away.
    """
    where = _subject_token(name, namespace)
    return f"{PREFIX}.signal.{_word(plane)}.{_word(kind)}.{where}{_tail(source, aspect)}"


def decision(kind: str, name: str, namespace: str = "") -> str:
    """Return the subject of the decisions about one node, VM or the daemon itself."""
    return f"{PREFIX}.decision.{_word(kind)}.{_subject_token(name, namespace)}"


def dead_letter(reason: str, subject: str) -> str:
    """Return where a message that came on ``subject`` is put aside; any subject will do.

    The subject follows the reason, without our prefix, as far as it can: its tokens are cleaned,
    and what is too long is cut.
    """
    tokens = subject.removeprefix(f"{PREFIX}.").split(".")[:_DEAD_TOKENS_MAX]
    cleaned = (_NO_NAME.sub("-", one.replace("_", "."))[:NAME_LENGTH_MAX] for one in tokens)
    tail = ".".join(token(one) if one else "-" for one in cleaned)
    return f"{PREFIX}.dead-letter.{_word(reason)}.{tail}"


def is_marker(subject: str) -> bool:
    """Whether a message says something about all messages offered before it.

    The publisher never lets such a message overtake them.
    """
    return subject.startswith(_MARKERS)


def is_signal(subject: str) -> bool:
    """Whether a message is a signal: a bare document that anybody may publish."""
    return subject.startswith(_SIGNALS) and not subject.startswith(PROGRESS)


def subject_name(encoded: str) -> tuple[str, str]:
    """Return ``(namespace, name)`` of the last token of a heartbeat, signal or decision."""
    namespace, _, name = encoded.rpartition("/")
    return name_of(namespace), name_of(name)


def _subject_token(name: str, namespace: str) -> str:
    return f"{token(namespace)}/{token(name)}" if namespace else token(name)


def _tail(source: str, aspect: str) -> str:
    return "".join(f".{tail_token(part)}" for part in (source, aspect) if part)


def _word(word: str) -> str:
    """Check a token that comes from our own vocabulary: a plane, a kind, a watch."""
    if not _WORD.fullmatch(word):
        raise SubjectNameError(f"{word!r} is not a plane, kind or watch: letters, digits and '-'")
    return word
