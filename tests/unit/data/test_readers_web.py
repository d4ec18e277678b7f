"""Files over HTTP: what may be asked for, and from where (threat F09)."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from readers_parts import read_all, texts

from autoglm_ops.data.readers import Limits, plan, read, survey
from autoglm_ops.data.readers.addresses import Target, address_of, is_public, parse
from autoglm_ops.data.readers.web import Page
from autoglm_ops.data.rows import Shape
from autoglm_ops.errors import AutoGLMError, Refused, Tampered, TryAgain, UsageError

HOST = "data.example.com"
LINES = b"".join(b'{"text":"row %d"}\n' % n for n in range(2000))


class Handler(BaseHTTPRequestHandler):
    """Files by path; a path that begins with a status answers with it."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes] = {}
    asked: list[tuple[str, str]] = []
    ranges = True
    tag = '"one"'
    promise: Callable[[int], int] = staticmethod(lambda size: size)
    pause: threading.Event | None = None

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        kind = type(self)
        kind.asked.append((self.headers["Host"], self.path))
        first = self.path[1:4]
        data = kind.files.get(self.path)
        if data is None:
            self.send_response(int(first) if first.isdecimal() else 404)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if kind.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(kind.promise(len(data) - start) if body else len(data)))
        self.send_header("ETag", kind.tag)
        self.end_headers()
        if body:
            if kind.pause:
                kind.pause.wait(20)
            self.wfile.write(data[start:])
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Handler], str]]:
    """A server on loopback, its handler, and its address as an URL."""
    handler = type("Own", (Handler,), {"files": {"/a.jsonl": LINES, "/b.jsonl.gz": gzip.compress(LINES)}, "asked": []})
    web = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield handler, f"http://127.0.0.1:{web.server_port}"
    if handler.pause:
        handler.pause.set()
    web.shutdown()
    web.server_close()
    thread.join()


LOCAL = Limits(hosts=("127.0.0.1", HOST), allow_private=True)


def test_a_file_over_http_reads_as_a_local_one(server: tuple[type[Handler], str], tmp_path: Path, shape: Shape) -> None:
    handler, base = server
    (tmp_path / "a.jsonl").write_bytes(LINES)
    local, _ = read_all(tmp_path / "a.jsonl", shape)
    for ranges in (True, False):
        handler.ranges = ranges
        for name, most in (("a.jsonl", 1 << 30), ("a.jsonl", 5000), ("b.jsonl.gz", 1 << 30)):
            frame, rejects = read_all(f"{base}/{name}", shape, LOCAL, most)
            assert (texts(frame), rejects) == (texts(local), [])


def test_parquet_over_http_is_copied_first(server: tuple[type[Handler], str], tmp_path: Path, shape: Shape) -> None:
    import polars as pl

    handler, base = server
    pl.DataFrame({"text": ["one", "two"]}).write_parquet(tmp_path / "a.parquet")
    handler.files["/a.parquet"] = (tmp_path / "a.parquet").read_bytes()
    assert texts(read_all(f"{base}/a.parquet", shape, LOCAL)[0]) == ["one", "two"]


def test_it_is_another_file_than_was_listed(server: tuple[type[Handler], str], shape: Shape) -> None:
    handler, base = server
    (shard,) = plan(survey(f"{base}/a.jsonl", LOCAL).blobs, 1 << 30)
    handler.tag = '"two"'
    with pytest.raises(Tampered, match="another one than when it was listed"):
        list(read(shard, f"{base}/a.jsonl", shape, LOCAL))
    handler.tag, handler.files["/a.jsonl"] = '"one"', LINES[:-1]
    with pytest.raises(Tampered):
        list(read(shard, f"{base}/a.jsonl", shape, LOCAL))


def test_a_body_that_breaks_off_means_try_again(server: tuple[type[Handler], str], shape: Shape) -> None:
    handler, base = server
    (shard,) = plan(survey(f"{base}/a.jsonl", LOCAL).blobs, 1 << 30)
    handler.files["/a.jsonl"] = LINES[:-100]
    handler.promise = staticmethod(lambda size: size + 100)
    with pytest.raises(TryAgain, match=r"broke off after \d+ of \d+ bytes|could not be read"):
        list(read(shard, f"{base}/a.jsonl", shape, LOCAL))


def test_a_server_that_keeps_us_waiting_is_cut_off(server: tuple[type[Handler], str], shape: Shape) -> None:
    handler, base = server
    (shard,) = plan(survey(f"{base}/a.jsonl", LOCAL).blobs, 1 << 30)
    handler.pause = threading.Event()
    with pytest.raises(TryAgain, match=r"took longer than allowed|could not be read"):
        list(read(shard, f"{base}/a.jsonl", shape, Limits(hosts=LOCAL.hosts, allow_private=True, seconds=0.3)))


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [(301, Refused, "redirect"), (302, Refused, "redirect"), (307, Refused, "redirect"), (404, Refused, "no-such-file"),
     (403, Refused, "no-such-file"), (500, TryAgain, ""), (503, TryAgain, ""), (429, TryAgain, "")],
)  # fmt: skip
def test_answers_that_are_no_file(
    status: int, kind: type[AutoGLMError], reason: str, server: tuple[type[Handler], str]
) -> None:
    handler, base = server
    with pytest.raises(kind) as caught:
        survey(f"{base}/{status}/x.jsonl", LOCAL)
    assert not reason or caught.value.reasons == (reason,)  # type: ignore[attr-defined]
    assert len(handler.asked) == 1, "a redirect was followed"


def test_a_file_over_the_cap_is_not_fetched(server: tuple[type[Handler], str]) -> None:
    with pytest.raises(Refused, match="at most 100 are fetched"):
        survey(f"{server[1]}/a.jsonl", Limits(hosts=LOCAL.hosts, allow_private=True, unpacked=100))


def test_no_proxy_of_the_environment_is_used(server: tuple[type[Handler], str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert survey(f"{server[1]}/a.jsonl", LOCAL).blobs[0].size == len(LINES)


def test_it_connects_to_the_address_that_was_checked_and_asks_under_the_name(server: tuple[type[Handler], str]) -> None:
    """A name server that flips between answers has one chance, and that one is checked."""
    handler, base = server
    port = int(base.rpartition(":")[2])
    answers = iter([["127.0.0.1"], ["127.0.0.9"]])
    page = Page(f"http://{HOST}:{port}/a.jsonl", LOCAL, lambda host, port: next(answers))
    assert [blob.name for blob in page.blobs()] == [f"{HOST}/a.jsonl"]
    assert handler.asked == [(f"{HOST}:{port}", "/a.jsonl")]


def test_by_default_this_machine_is_out_of_reach(server: tuple[type[Handler], str]) -> None:
    handler, base = server
    with pytest.raises(Refused, match=r"leads to 127\.0\.0\.1, which is not a public address"):
        survey(f"{base}/a.jsonl", Limits(hosts=("127.0.0.1",)))
    with pytest.raises(Refused, match="not on the list of allowed hosts"):
        survey(f"{base}/a.jsonl", Limits(allow_private=True))
    assert handler.asked == []


def certificate(folder: Path, host: str) -> Any:
    """A self-signed certificate for `host`, as a server's TLS context; its file is the authority to trust."""
    pytest.importorskip("cryptography")
    import ssl
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize("name", [HOST, "other.example.com"])
def test_over_tls_the_server_must_prove_the_name_in_the_url(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = certificate(tmp_path, name)
    handler = type("Own", (Handler,), {"files": {"/a.jsonl": LINES}, "asked": []})
    web = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    page = Page(f"https://{HOST}:{web.server_port}/a.jsonl", LOCAL, lambda host, port: ["127.0.0.1"])
    try:
        if name == HOST:
            assert [blob.size for blob in page.blobs()] == [len(LINES)]
        else:
            with pytest.raises(Refused, match="cannot prove its name"):
                list(page.blobs())
            assert handler.asked == []
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


PRIVATE_4 = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "169.254.170.2", "100.64.0.1", "100.100.100.200", "192.0.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.88.99.1",
]  # fmt: skip
PRIVATE_6 = [
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "100::1", "2001::1", "2001:db8::1",
    "2001:10::1", "2001:20::1", "3fff::1", "5f00::1", "64:ff9b:1::1", *(f"::ffff:{address}" for address in PRIVATE_4), *(f"::{address}" for address in PRIVATE_4),
    *(f"64:ff9b::{address}" for address in PRIVATE_4), "2002:7f00:1::", "2002:a9fe:a9fe::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "not an address", "",
]  # fmt: skip


def test_no_special_address_is_public() -> None:
    assert [address for address in PRIVATE_4 + PRIVATE_6 if is_public(address)] == []
    assert all(map(is_public, ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2001:4860:4860::8888"]))


def test_one_private_answer_among_public_ones_is_enough_to_refuse() -> None:
    target = Target("https", HOST, 443, "/a")
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["8.8.8.8", "10.0.0.1"]

    with pytest.raises(Refused, match=r"leads to 10\.0\.0\.1"):
        address_of(target, resolve)
    assert asked == [HOST]
    assert address_of(target, lambda host, port: ["8.8.8.8", "1.1.1.1"]) == "8.8.8.8"
    with pytest.raises(TryAgain, match="has no address now"):
        address_of(target, lambda host, port: [])


def unusual(address: str) -> list[str]:
    """One IPv4 address as the world's parsers read it."""
    a, b, c, d = map(int, address.split("."))
    number = (a << 24) + (b << 16) + (c << 8) + d
    return [
        f"{number}", f"0x{number:x}", f"0{number:o}", f"{a}.{number & 0xFFFFFF}", f"{a}.{b}.{(c << 8) + d}", f"0x{a:x}.{b}.{c}.{d}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{a}.{b}.{c}.0x{d:x}", f"{a}.{b}.{c}.00{d}", f"{address}.", f"{a}。{b}。{c}。{d}", f"[{address}]",
        f"[::ffff:{address}]", f"[::{address}]", f"{HOST}@{address}", f"user:pass@{address}", f"{address}\\@{HOST}", f"{HOST}\\.{address}",
        f"{address}#@{HOST}", f"{address}?@{HOST}", f"{address}%00.{HOST}", f"{address}\t", f"{address}\n", f" {address}", f"%31{address[1:]}", f"{address}:0", f"{address}:99999",
        f"{address}:80:80", f"{address}:-1", f"{address}:8０",
    ]  # fmt: skip


SCHEMES = [
    "file:///etc/passwd", "ftp://{0}/a", "gopher://{0}/a", "data:,x", "javascript:0", "dict://{0}:11/", "ldap://{0}/", "HTTP://{0}/a", "http:/{0}/a",
    "http:{0}/a", "http:///{0}/a", "//{0}/a", "http:\\\\{0}\\a", "https://{0}", "http://{0}/a b", "http://{0}/a\r\nHost: x", "http://{0}/a#b", "http://{0}/é", "http://{0}./a",
    "http://.{0}/a", "http://-{0}/a", "http://{0}-/a", "http://{0}/\x00", "http://{0}/a\\b", "http://DATA.example.com/a", "http://data.example.com。/a", "http://ｄata.example.com/a",
    "http://data..example.com/a", "http://xn--a.{0}./a", "http://{0}\uff0f@evil/a", "http://{0}%2f@evil/a", "http://{0}:80@evil/a", "http://[{0}]/a", "http://[::1]/a", "",
]  # fmt: skip
PAYLOADS = [
    *(f"{scheme}://{host}/a.jsonl" for scheme in ("http", "https") for address in PRIVATE_4[:10] for host in unusual(address)),
    *(scheme.format(HOST) for scheme in SCHEMES),
]


def test_hostile_urls_are_refused_before_any_name_is_asked_for() -> None:
    """Over 500, each against a list that allows every host they could mean."""
    assert len(PAYLOADS) > 500
    allowed = (HOST, *PRIVATE_4, "evil")
    for url in PAYLOADS:
        try:
            target = parse(url, allowed)
        except (UsageError, Refused):
            continue
        raise AssertionError(f"{url!r} was taken as {target}")


@given(url=st.text(max_size=60).map(lambda text: f"http://{text}"))
def test_whatever_is_accepted_is_what_another_parser_sees(url: str) -> None:
    from urllib.parse import urlsplit

    try:
        target = parse(url, ("a", "0", HOST))
    except (UsageError, Refused):
        return
    other = urlsplit(url)
    assert (other.hostname, other.port or 80, other.username) == (target.host, target.port, None)


def test_what_a_url_names_keeps_its_key_to_itself() -> None:
    assert parse(f"https://{HOST}/a.jsonl?key=canary", (HOST,)).name == f"{HOST}/a.jsonl"
    for url in (f"https://user:canary@{HOST}/a", "https://evil.com/a?key=canary", f"ftp://{HOST}/?canary"):
        with pytest.raises((UsageError, Refused)) as caught:
            parse(url, (HOST,))
        assert "canary" not in str(caught.value)


def test_other_schemes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown data location 'ftp'"):
        survey("ftp://x/a.jsonl", Limits())
