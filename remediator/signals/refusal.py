"""Why a message is not let in: one short word each, the same in metrics, headers and docs."""

from __future__ import annotations

import enum


class Refusal(enum.StrEnum):
    """Reasons; a subject's token and a metric's label."""

    BAD_SUBJECT = "bad-subject"  # not PLANE.KIND.NAME[.SOURCE[.ASPECT]]
    UNKNOWN_PLANE = "unknown-plane"
    TOO_LARGE = "too-large"  # the payload, in bytes
    NOT_UTF8 = "not-utf8"
    NOT_JSON = "not-json"
    WRONG_TYPE = "wrong-type"  # or a field that is missing
    BAD_NUMBER = "bad-number"  # a time before 1970 or after 5138, or that no double holds
    TOO_LONG = "too-long"  # a text field; or an empty source
    BAD_TEXT = "bad-text"  # control characters in a text field
    BAD_NAME = "bad-name"  # of the subject: Kubernetes' rules
    WRONG_KIND = "wrong-kind"  # this plane does not speak of such subjects
    WRONG_READING = "wrong-reading"  # no reading, or none that this plane gives
    MISMATCH = "mismatch"  # the document is not about what its subject says
    UNKNOWN_SOURCE = "unknown-source"  # reserved to us, or signals.require_known
    WRONG_SOURCE = "wrong-source"  # known, but not for this plane or subject
    NOT_OURS = "not-ours"  # facts and marks of another process
    BAD_EVENT = "bad-event"  # what only our own watchers send, and not as they do


class RefusedError(Exception):
    """One message is not let in. ``why`` is one line for a person."""

    def __init__(self, reason: Refusal, why: str) -> None:
        super().__init__(f"{reason}: {why}")
        self.reason = reason
        self.why = why
