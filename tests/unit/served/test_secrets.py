"""The key and TLS: who gets the key, and where it does not stand. The servers are fakes; the certificate is made here."""

from __future__ import annotations

import asyncio
import logging
import pickle
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.served.client import Servers, check_servers
from renio_pipeline.served.spec import Secret, ServedSpec, read_key
from tests.fakes.teacher_server import KEY, FakeServer, served
from tests.unit.served.conftest import request_of, spec_of


def test_the_key_is_sent_to_the_servers_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with served(FakeServer(key=KEY)) as (fake,):
            servers = Servers(spec_of(fake, key_env="THE_KEY"))
            await servers.open()
            await servers.score(request_of(0))
            await servers.close()
            assert {headers["Authorization"] for headers in fake.headers} == {f"Bearer {KEY}"}

    monkeypatch.setenv("THE_KEY", KEY)
    asyncio.run(go())


def test_the_key_stands_in_no_text(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The server repeats the key in its refusal."""
    wrong = "sk-" + "another-key-0123456789"
    monkeypatch.setenv("THE_KEY", f"{wrong}\n")
    texts: list[Any] = []

    async def go() -> None:
        async with served(FakeServer(key=KEY)) as (fake,):
            spec = spec_of(fake, key_env="THE_KEY", secret=read_key("THE_KEY"))
            servers = Servers(spec)
            await servers.open()
            texts.extend([spec, servers.standing, vars(servers), spec.secret, f"{spec.secret}"])
            await servers.close()
            with pytest.raises(ConfigError) as refused:
                await check_servers(spec)
            texts.extend([refused.value, refused.getrepr(style="long", showlocals=True)])

    with caplog.at_level(logging.DEBUG):
        asyncio.run(go())
    said = "\n".join(map(str, [*texts, *map(repr, texts), caplog.text]))
    assert "Incorrect API key: Bearer ***" in said
    assert wrong not in said


def test_the_key_goes_to_another_process_with_the_specification() -> None:
    spec: ServedSpec = pickle.loads(pickle.dumps(spec_of(secret=Secret(KEY), key_env="NOT_SET_HERE")))
    assert spec.bearer().header == {"Authorization": f"Bearer {KEY}"}


def test_a_missing_key_is_named_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError, match=r"teacher.key_env: the environment variable NOT_SET_HERE is not set"):
        Servers(spec_of(key_env="NOT_SET_HERE"))


def certificate(folder: Path) -> Path:
    """A certificate of localhost that signs itself, with its key beside it."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return folder / "cert.pem"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not here")
def test_tls_is_checked_against_the_authorities_that_are_named(tmp_path: Path) -> None:
    cert = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, tmp_path / "key.pem")

    async def go(ca_file: str | None) -> list[str]:
        async with served(FakeServer(), context=context) as (fake,):
            assert fake.url.startswith("https://")
            return await check_servers(spec_of(fake, ca_file=ca_file))

    assert asyncio.run(go(str(cert))) == []
    with pytest.raises(ConfigError, match=r"TLS: .*certificate.*; name its authority's certificates in ca_file"):
        asyncio.run(go(None))
    with pytest.raises(ConfigError, match=r"teacher.ca_file: .*key.pem cannot be read as certificates"):
        asyncio.run(go(str(tmp_path / "key.pem")))
