from __future__ import annotations

import pytest

from remediator.kube.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    ServerError,
    Status,
    TooManyRequestsError,
    UnauthorizedError,
    error_from,
    error_from_status,
    raise_for,
)
from remediator.kube.transport import Response
from tests.kube.scripted import answer, status


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (401, "Unauthorized", UnauthorizedError),
        (403, "Forbidden", ForbiddenError),
        (404, "NotFound", NotFoundError),
        (409, "Conflict", ConflictError),
        (409, "AlreadyExists", AlreadyExistsError),
        (410, "Expired", GoneError),
        (422, "Invalid", InvalidError),
        (429, "TooManyRequests", TooManyRequestsError),
        (500, "InternalError", ServerError),
        (503, "ServiceUnavailable", ServerError),
        (418, "Teapot", ApiError),
    ],
)
def test_each_status_becomes_the_error_of_its_meaning(code, reason, kind):
    error = error_from(status(code, reason, "the node is busy"), "PATCH", "/api/v1/nodes/n1")
    assert type(error) is kind
    assert (error.status, error.reason) == (code, reason)
    assert "PATCH /api/v1/nodes/n1" in error.message
    assert "the node is busy" in str(error)


@pytest.mark.parametrize("code", [200, 201, 202])
def test_a_success_raises_nothing(code):
    raise_for(answer({}, code), "GET", "/x")


def test_a_redirect_is_no_success():
    with pytest.raises(ApiError):
        raise_for(answer(b"", 302), "GET", "/x")


def test_an_html_page_is_named_by_its_title_and_never_dumped():
    page = b"<html><head><title>502 Bad\nGateway</title></head>" + b"x" * 100_000
    error = error_from(answer(page, 502), "GET", "/x")
    assert "HTML page" in error.message
    assert "502 Bad Gateway" in error.message
    assert len(str(error)) < 300


def test_garbage_is_sampled_on_one_line():
    error = error_from(answer(b"\xff\x00 no\njson " * 10_000, 500), "GET", "/x")
    assert "110000 bytes that are no Status" in error.message
    assert "\n" not in str(error)
    assert len(str(error)) < 400


def test_an_empty_body_is_called_empty():
    assert "empty body" in error_from(answer(b"", 503), "GET", "/x").message


def test_a_message_of_a_webhook_is_cut_off():
    error = error_from(status(403, "Forbidden", "denied " * 10_000), "GET", "/x")
    assert len(str(error)) < 600


def test_json_that_is_no_status_is_not_taken_for_one():
    assert "no Status" in error_from(answer({"hello": 1}, 500), "GET", "/x").message


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "1.5"}, 1.5),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "-3"}, None),
        ({}, None),
        (
            {
                "Retry_After": "Fri, 20 Nov 2026 08:00:30 GMT",
                "Date": "Fri, 20 Nov 2026 08:00:00 GMT",
            },
            30.0,
        ),
        (
            {
                "Retry_After": "Fri, 20 Nov 2026 07:00:00 GMT",
                "Date": "Fri, 20 Nov 2026 08:00:00 GMT",
            },
            0.0,
        ),
        ({"Retry_After": "Fri, 20 Nov 2026 08:00:30 GMT"}, None),
        (
            {
                "Retry_After": "Fri, 20 Nov 2026 08:00:30 -0000",
                "Date": "Fri, 20 Nov 2026 08:00:00 GMT",
            },
            30.0,
        ),
    ],
)
def test_retry_after_is_read_as_seconds_or_against_the_answers_own_date(headers, expected):
    error = error_from(status(429, "TooManyRequests", **headers), "GET", "/x")
    assert error.retry_after_s == expected


def test_retry_after_of_the_status_details_counts_without_a_header():
    body = {"kind": "Status", "message": "wait", "details": {"retryAfterSeconds": 3}}
    assert error_from(answer(body, 429), "GET", "/x").retry_after_s == 3


def test_a_status_in_a_stream_that_says_expired_is_gone_whatever_its_code():
    assert type(error_from_status(Status(reason="Expired", code=500), "WATCH", "/x")) is GoneError


def test_a_status_in_a_stream_without_code_is_a_servers_error():
    error = error_from_status(Status(message="?"), "WATCH", "/x")
    assert type(error) is ServerError


def test_header_names_are_those_of_the_transport_in_lower_case():
    response = Response(status=429, headers={"retry-after": "2"}, body=b"")
    assert error_from(response, "GET", "/x").retry_after_s == 2
