from __future__ import annotations

import pytest

from remediator.durations import format_duration, parse_duration, parse_moment


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("1.5h", 5400), ("7", 7),
        ("2d", 172800), (" 3s ", 3),
    ],
)  # fmt: skip
def test_reads_what_people_write(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "5 parsecs", "-5s", "5m3", "1e3", "٣s", "nan", "5S"])
def test_refuses_the_rest_with_a_hint(text):
    with pytest.raises(ValueError, match="write 90s, 5m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.25, "0.25 s"), (12.44, "12.4 s"), (89.96, "90 s"), (90, "1 min 30 s"),
        (300, "5 min"), (3600, "1 h"), (5400, "1 h 30 min"), (200000, "2 d 7 h"), (-3, "-3 s"),
        (float("inf"), "for ever"),
    ],
)  # fmt: skip
def test_writes_what_people_read(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2h", 1_000_000 - 7200),
        ("1970-01-01T00:01", 60),
        ("1970-01-01T01:01+01:00", 60),
        ("1970-01-02", 86400),
        ("12345.5", 12345.5),
    ],
)
def test_moments(text, at):
    assert parse_moment(text, 1_000_000) == at


def test_a_moment_that_is_none_is_refused_with_a_hint():
    with pytest.raises(ValueError, match="write 2h"):
        parse_moment("last night", 0)
