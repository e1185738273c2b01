"""The webhook over real TLS on loopback: the contract's edges, and certificates that change."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme
from admission_desk import Desk, HandClock, launcher, review

from remediator.admission import server as webhook
from remediator.admission.certificate import Certificate, CertificateError
from remediator.admission_settings import AdmissionSettings

AN_HOUR = dt.timedelta(hours=1)


class Files:
    """A mounted Secret: a certificate of one authority, and its key."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.cert, self.key = directory / "tls.crt", directory / "tls.key"
        self.issue()

    def issue(self, **lifetime: object) -> None:
        made = self.authority.issue_cert("localhost", "127.0.0.1", **lifetime)
        self.key.write_bytes(made.private_key_pem.bytes())
        self.cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))

    @property
    def settings(self) -> AdmissionSettings:
        return AdmissionSettings(
            cert_file=str(self.cert),
            key_file=str(self.key),
            host="127.0.0.1",
            port=0,
            reload_s=0.05,
        )

    def certificate(self, clock: HandClock | None = None) -> Certificate:
        return Certificate(str(self.cert), str(self.key), clock or HandClock())


class Caller:
    """A kube-apiserver's side of it."""

    def __init__(self, files: Files, port: int) -> None:
        self.tls = ssl.create_default_context()
        files.authority.configure_trust(self.tls)
        self.port = port
        self.session = aiohttp.ClientSession()

    async def post(self, body, *, path=webhook.PATH, content_type="application/json"):
        async with self.session.post(
            f"https://127.0.0.1:{self.port}{path}",
            data=io.BytesIO(body),
            headers={"content-type": content_type},
            ssl=self.tls,
        ) as answer:
            return answer.status, await answer.read()

    async def serial(self) -> int:
        """Return the serial number of the certificate that a new connection gets."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
        found = writer.get_extra_info("ssl_object").getpeercert()
        writer.close()
        return int(found["serialNumber"], 16)


@pytest.fixture
def files(tmp_path) -> Files:
    return Files(tmp_path)


@pytest.fixture
async def caller(files, desk):
    async with webhook.serving(desk.reviewer, files.certificate(), files.settings) as port:
        caller = Caller(files, port)
        yield caller
        await caller.session.close()


def body(**request) -> bytes:
    return json.dumps(review(launcher(), **request)).encode()


async def test_a_review_is_answered(caller, desk):
    desk.lead(storm=True)
    status, answer = await caller.post(body())
    assert status == 200
    response = json.loads(answer)["response"]
    assert (response["uid"], response["allowed"]) == ("r1", True)
    assert response["patch"]


async def test_many_at_once_are_answered_each_with_its_own_uid(caller):
    answers = await asyncio.gather(*(caller.post(body(uid=f"r{n}")) for n in range(200)))
    uids = [json.loads(answer)["response"]["uid"] for _, answer in answers]
    assert uids == [f"r{n}" for n in range(200)]


async def test_what_is_no_review_gets_400(caller):
    status, answer = await caller.post(b"{}")
    assert status == 400
    assert answer.startswith(b"no AdmissionReview")


async def test_a_huge_body_gets_413_and_the_next_is_answered(caller):
    status, _ = await caller.post(b"x" * (webhook.BODY_MAX + 1))
    assert status == 413
    assert (await caller.post(body()))[0] == 200


async def test_a_large_pod_is_answered(caller, desk):
    desk.lead(storm=True)
    pod = launcher()
    pod["metadata"]["annotations"]["big"] = "x" * 2_000_000
    status, answer = await caller.post(json.dumps(review(pod)).encode())
    assert status == 200
    assert json.loads(answer)["response"]["patch"]


async def test_other_methods_paths_and_types_are_refused(caller):
    assert (await caller.post(body(), path="/elsewhere"))[0] == 404
    assert (await caller.post(body(), content_type="text/html"))[0] == 415
    url = f"https://127.0.0.1:{caller.port}{webhook.PATH}"
    async with caller.session.get(url, ssl=caller.tls) as answer:
        assert answer.status == 405


async def test_a_body_that_never_ends_is_given_up(caller, monkeypatch):
    monkeypatch.setattr(webhook, "_BODY_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.port, ssl=caller.tls)
    head = f"POST {webhook.PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: 100\r\n\r\n{{".encode())
    async with asyncio.timeout(5):
        assert b" 408 " in await reader.readline()
    writer.close()


async def test_without_tls_nothing_is_answered(caller):
    with pytest.raises(aiohttp.ClientError):
        await caller.session.get(f"http://127.0.0.1:{caller.port}{webhook.PATH}")


async def until(condition, limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_a_renewed_certificate_is_served_without_a_restart(caller, files):
    before = await caller.serial()
    await caller.post(body())  # a connection that stays open meanwhile
    files.issue()

    async def renewed() -> bool:
        return await caller.serial() != before

    await until(renewed)
    assert (await caller.post(body()))[0] == 200


async def test_a_pair_that_does_not_fit_is_not_taken(caller, files):
    before = await caller.serial()
    files.key.write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())
    await asyncio.sleep(0.2)  # several looks at the files
    assert await caller.serial() == before
    assert (await caller.post(body()))[0] == 200


@pytest.mark.parametrize("content", [b"", b"garbage", None], ids=str)
def test_a_file_that_cannot_be_used_is_named_at_start(files, content):
    if content is None:
        files.cert.unlink()
    else:
        files.cert.write_bytes(content)
    with pytest.raises(CertificateError, match=r"tls\.crt"):
        files.certificate().load()


def test_a_missing_key_is_named_at_start(files):
    files.key.unlink()
    with pytest.raises(CertificateError, match=r"tls\.key"):
        files.certificate().load()


def test_files_that_did_not_change_are_not_loaded_again(files):
    certificate = files.certificate()
    assert certificate.load()
    assert not certificate.load()
    assert certificate.loaded == 1


def test_files_that_go_away_later_leave_the_certificate_in_use(files):
    certificate = files.certificate()
    certificate.load()
    files.cert.unlink()
    certificate.look()
    assert certificate.loaded == 1
    files.issue()
    certificate.look()
    assert certificate.loaded == 2


def test_an_end_that_is_near_is_told_once(files, capsys):
    ends = dt.datetime.now(dt.UTC) + AN_HOUR
    files.issue(not_after=ends)
    clock = HandClock()
    clock.at = ends.timestamp() - 3600.0
    certificate = files.certificate(clock)
    certificate.load()
    assert certificate.not_after == pytest.approx(ends.timestamp(), abs=1.0)
    certificate.look()
    certificate.look()
    assert capsys.readouterr().out.count("webhook_certificate_ends") == 1


async def test_a_port_that_is_taken_is_an_error(files, desk):
    settings = files.settings
    async with webhook.serving(desk.reviewer, files.certificate(), settings) as port:
        taken = AdmissionSettings(
            cert_file=settings.cert_file,
            key_file=settings.key_file,
            host="127.0.0.1",
            port=port,
        )
        with pytest.raises(OSError, match="address"):
            async with webhook.serving(Desk().reviewer, files.certificate(), taken):
                pass
