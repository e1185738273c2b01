from __future__ import annotations

import pytest

from remediator.bus.settings import NatsConfigError, NatsSettings, check_settings, redacted


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"url": "http://x:1"}, "must begin with nats:// or tls://"),
        ({"url": "nats://"}, "names no host"),
        ({"url": ""}, "nats.url is empty"),
        ({"url": "nats://x:99999"}, "not a URL"),
        ({"url": "nats://a:1,tls://b:2"}, "mixes"),
        ({"url": "nats://x", "connect_timeout_s": 0}, "connect_timeout_s"),
        ({"url": "nats://x", "replicas": 2}, "nats.replicas must be 1, 3 or 5"),
        ({"replicas": 3}, "must be 1 with nats.url embedded"),
        ({"url": "nats://x", "user": "u"}, "nats.password_file"),
        ({"url": "nats://x", "token_file": "/nowhere"}, "nats.token_file: cannot read /nowhere"),
        ({"url": "nats://x", "token_file": "/dev/null"}, "nats.token_file: /dev/null is empty"),
        ({"url": "nats://x", "token_file": "/a", "creds_file": "/b"}, "give one way to log in"),
        ({"url": "tls://x", "tls_ca_file": "/nowhere"}, "nats.tls_ca_file"),
        ({"url": "tls://x", "tls_cert_file": "/nowhere"}, "nats.tls_cert_file"),
        ({"url": "tls://x", "tls_key_file": "/nowhere"}, "needs nats.tls_cert_file"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line_that_names_them(settings, says):
    with pytest.raises(NatsConfigError, match=says) as caught:
        check_settings(NatsSettings(**settings))
    assert "\n" not in str(caught.value)


def test_good_settings_pass(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s\n")
    check_settings(NatsSettings())
    check_settings(NatsSettings(url="nats://a:4222, nats://b:4222,nats://[::1]:4222", replicas=3))
    check_settings(NatsSettings(url="tls://a", user="u", password_file=str(secret)))


def test_a_url_is_shown_without_its_password():
    assert redacted("nats://u:secret@h:1,nats://t@k:2") == "nats://h:1,nats://k:2"


def test_keys_without_their_library_are_told_before_connecting(tmp_path, monkeypatch):
    seed = tmp_path / "seed"
    seed.write_text("SU...")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(NatsConfigError, match="nkeys, which is not installed"):
        check_settings(NatsSettings(url="nats://x", nkey_seed_file=str(seed)))
