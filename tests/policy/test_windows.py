from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from remediator.policy.windows import CronWindow, WindowFaultError

BERLIN = "Europe/Berlin"


def at(text, zone=BERLIN):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("clock", "open_"),
    [
        ("2026-11-20T21:59:59", False),
        ("2026-11-20T22:00:00", True),
        ("2026-11-21T03:59:59", True),
        ("2026-11-21T04:00:00", False),
    ],
)
def test_it_is_open_from_its_schedule_on_for_as_long_as_it_says(clock, open_):
    window = CronWindow("0 22 * * *", 6 * 3600, BERLIN)
    assert window.active(at(clock)) is open_


def test_it_opens_next_at_the_next_time_of_its_schedule():
    window = CronWindow("0 22 * * MON-FRI", 3600, BERLIN)
    assert window.opens_at(at("2026-11-20T12:00")) == at("2026-11-20T22:00")
    assert window.opens_at(at("2026-11-20T22:00")) == at("2026-11-23T22:00")  # over the weekend


def test_the_clock_is_that_of_its_zone():
    window = CronWindow("0 9 * * *", 3600, "Asia/Kathmandu")
    assert window.active(at("2026-11-20T09:30", "Asia/Kathmandu"))
    assert not window.active(at("2026-11-20T09:30"))


def test_a_time_that_summer_time_skips_is_taken_an_hour_later():
    window = CronWindow("30 2 * * *", 3600, BERLIN)  # 2026-03-29: 02:00 is followed by 03:00
    assert window.opens_at(at("2026-03-29T00:00")) == at("2026-03-29T03:30")
    assert window.active(at("2026-03-29T03:45"))


def test_a_time_that_comes_twice_opens_it_once():
    window = CronWindow("30 2 * * *", 1800, BERLIN)  # 2026-10-25: 03:00 is followed by 02:00
    first = at("2026-10-25T02:30")
    assert window.active(first)
    assert window.active(first + 1799)
    assert not window.active(first + 1800)
    assert not window.active(first + 3600)  # 02:30 once more
    assert window.opens_at(first) == at("2026-10-26T02:30")


def test_how_long_is_counted_in_real_time():
    window = CronWindow("0 0 * * *", 6 * 3600, BERLIN)  # over the hour that comes twice
    midnight = at("2026-10-25T00:00")
    assert window.active(midnight + 6 * 3600 - 1)
    assert not window.active(midnight + 6 * 3600)


def test_asking_back_and_forth_gives_the_same_answers():
    window = CronWindow("0 22 * * *", 6 * 3600, BERLIN)
    hours = [at("2026-10-20T00:00") + 3600 * hour for hour in range(24 * 14)]
    forward = [window.active(hour) for hour in hours]
    assert [window.active(hour) for hour in reversed(hours)] == forward[::-1]
    assert forward == [CronWindow("0 22 * * *", 6 * 3600, BERLIN).active(hour) for hour in hours]
    assert sum(forward) == 4 + 13 * 6 + 1  # parts of the first night and of the last


@pytest.mark.parametrize("schedule", ["0 0 29 2 *", "0 0 31 12 *"])
def test_a_day_that_comes_seldom_is_no_fault(schedule):
    assert CronWindow(schedule, 3600).opens_at(at("2026-11-20T00:00")) is not None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (("0 22 * *", 3600), "schedule"),
        (("@daily", 3600), "schedule"),
        (("0 0 30 2 *", 3600), "schedule"),
        (("60 * * * *", 3600), "schedule"),
        (("0 22 * * *", 59), "duration"),
        (("0 22 * * *", 3600, "../../etc/passwd"), "timeZone"),
        (("0 22 * * *", 3600, "America"), "timeZone"),
        (("0 22 * * *", 3600, ""), "timeZone"),
    ],
)
def test_what_cannot_be_a_window_is_refused_by_field(given, field):
    with pytest.raises(WindowFaultError) as caught:
        CronWindow(*given)
    assert caught.value.field == field


def test_one_that_opens_before_it_closes_never_closes():
    assert CronWindow("0 * * * *", 3600).never_closes()
    assert not CronWindow("0 * * * *", 3599).never_closes()
    assert not CronWindow("0 22 * * MON-FRI", 24 * 3600).never_closes()
