"""Over TLS: certificates are checked, redirects stay on it, slow servers are cut there, too."""

from __future__ import annotations

import hashlib
import ipaddress
import random
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from quantmint.errors import RegistryError
from quantmint.registry.store import Store
from quantmint.registry.transfer import Item, Limits, fetch_all
from transfer.origin import Asked, FaultyOrigin, Reply

DATA = random.Random(4).randbytes(300_000)
ITEM = Item(sha256=hashlib.sha256(DATA).hexdigest(), size=len(DATA), path="f")
LIMITS = Limits(part=65_536, patience=5.0, least=1024, tries=1, first=0.01, longest=0.05)


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context; its certificate is the only one that this test trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    local = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(local, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path, secret = tmp_path / "certificate.pem", tmp_path / "key.pem"
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, secret)
    return context


def test_a_trusted_server_is_fetched_from(store: Store, tls: ssl.SSLContext) -> None:
    with FaultyOrigin({"f": DATA}, tls=tls) as origin:
        (took,) = fetch_all([ITEM], [origin.url], store, limits=LIMITS, token="hf_secret")
        assert took.fetched == len(DATA)
        assert {one.headers["authorization"] for one in origin.log} == {"Bearer hf_secret"}
    assert store.path(ITEM.sha256).read_bytes() == DATA


def test_an_unknown_certificate_is_refused(
    store: Store, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with FaultyOrigin({"f": DATA}, tls=tls) as origin:
        with pytest.raises(RegistryError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch_all([ITEM], [origin.url], store, limits=LIMITS)
        assert origin.log == []


def test_no_redirect_leaves_tls(store: Store, tls: ssl.SSLContext) -> None:
    with FaultyOrigin({"f": DATA}) as plain, FaultyOrigin({"f": DATA}, tls=tls) as origin:
        origin.fault = lambda *_: Reply(302, {"Location": f"{plain.url}/f"}, b"")
        with pytest.raises(RegistryError, match="not followed"):
            fetch_all([ITEM], [origin.url], store, limits=LIMITS)
        assert plain.log == []


def test_a_server_that_stalls_or_drips_is_cut_off(store: Store, tls: ssl.SSLContext) -> None:
    def slow(_: FaultyOrigin, asked: Asked, reply: Reply) -> Reply:
        if asked.range and asked.range[0] >= 65_536:
            reply.drip = 0.05
        return reply

    limits = Limits(part=65_536, patience=0.3, least=4096, tries=0, first=0.01)
    with (
        FaultyOrigin({"f": DATA}, fault=slow, tls=tls) as bad,
        FaultyOrigin({"f": DATA}, tls=tls) as good,
    ):
        (took,) = fetch_all([ITEM], [bad.url, good.url], store, limits=limits)
        assert took.restarts == 0
        assert good.sent >= len(DATA) - 65_536 - 4096
    assert store.path(ITEM.sha256).read_bytes() == DATA
