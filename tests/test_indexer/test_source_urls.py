"""Image URLs in tables: off unless asked for, and never a way into private networks."""

from __future__ import annotations

import json
import pickle
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from colour import ColourEncoder, paint
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_server import PictureServer, dripping, endless, raw, serving, silent

from indexer import BuildError, build_index
from indexer.corpus import Item, SourceOptions, open_source
from indexer.corpus.item import Rejection
from indexer.corpus.remote.fetch import Fetcher, WebLimits, tls
from indexer.corpus.remote.url import is_intranet, is_public, parse_url, without_credentials
from indexer.errors import ContentError, SourceError
from storage import IndexStore
from twinlens.commands.build import build

LOCAL = WebLimits(seconds=5, allow_private=True)
MB = 2**20
_connected: list[Any] = []
_recording = [False]


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _recording[0] and event == "socket.connect":
        _connected.append(arguments[1])


# An audit hook stays for the life of the process; it sees every connection that Python opens.
sys.addaudithook(_note)


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with serving() as running:
        yield running


@pytest.fixture
def connections() -> Iterator[list[Any]]:
    """Every address that is connected to in a test."""
    _connected.clear()
    _recording[0] = True
    yield _connected
    _recording[0] = False


def reason(fetcher: Fetcher, url: str, max_bytes: int = MB) -> str:
    with pytest.raises(ContentError, match=r"^\w+: .+") as caught:
        fetcher.fetch(url, max_bytes)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def at(*addresses: str) -> Fetcher:
    """A fetcher whose every host has these addresses."""
    return Fetcher(WebLimits(seconds=2), resolve=lambda host, port: list(addresses))


def table(folder: Path, *urls: str, **columns: Any) -> Path:
    path = folder / "t.jsonl"
    rows = [{"url": url, **{name: values[n] for name, values in columns.items()}} for n, url in enumerate(urls)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# --- nothing private is reached

PORT = "{port}"
# Each leads to this machine, to a private network or to a cloud's metadata where a guard is naive.
PRIVATE_URLS = [
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://127.255.255.254:{port}/",
    "http://2130706433:{port}/",
    "http://017700000001:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0177.0.0.0x1:{port}/",
    "http://127.0.0.01:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://00000000:{port}/",
    "http://0x0:{port}/",
    "http://127.0.0.256:{port}/",
    "http://4294967297:{port}/",
    "http://6425673729:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://ip6-localhost:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2002:7f00:1::1]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fe80::1%lo]:{port}/",
    "http://[::1%lo]:{port}/",
    "http://[fc00::1]:{port}/",
    "http://[fd00:ec2::254]/latest/meta-data",
    "http://[fec0::1]:{port}/",
    "http://[ff02::1]:{port}/",
    "http://[2001:db8::1]:{port}/",
    "http://[2606:4700::5efe:127.0.0.1]:{port}/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://168.63.129.16/",
    "http://100.100.100.200/",
    "http://192.0.0.192/",
    "http://198.18.0.1/",
    "http://192.0.2.1/",
    "http://224.0.0.1/",
    "http://239.255.255.250/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://192.88.99.1/",
    "http://１２７.０.０.１:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127。0。0。1:{port}/",
    "http://ⓛocalhost:{port}/",
    "http://user@127.0.0.1:{port}/",
    "http://user:pass@127.0.0.1:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@example.com/",
    "http://127.0.0.1:{port}?@example.com/",
    "http://example.com:80@127.0.0.1/",
    "http://example.com\\@127.0.0.1:{port}/",
    "http:\\\\127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http://127.0.0.1 :{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1\r\nHost: x/",
    "http://127.0.0.1%00:{port}/",
    "http://127.0.0.1%2f@example.com:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://[127.0.0.1]:{port}/",
    "http://127.0.0.1:{port}:80/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:-1/",
    "http://:{port}/",
    "http:127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "http://",
    "http://.:{port}/",
    "http://..:{port}/",
    "http://[:{port}/",
    "ftp://127.0.0.1:{port}/",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "gopher://127.0.0.1:{port}/_x",
    "dict://127.0.0.1:{port}/",
    "data:image/png;base64,AAAA",
    "jar:http://127.0.0.1:{port}/",
    "ldap://127.0.0.1:{port}/",
    "s3://bucket/key",
    "http://" + "a" * 64 + ".com/",
    "http://" + "a" * 5000 + "/",
]


@pytest.mark.parametrize("form", PRIVATE_URLS)
def test_no_form_of_a_url_reaches_a_private_address(server: PictureServer, connections: list[Any], form: str) -> None:
    url = form.replace(PORT, str(server.server_address[1]))
    assert reason(Fetcher(WebLimits(seconds=2)), url) in ("bad_url", "refused_address", "unreachable")
    assert server.asked == []
    assert connections == []


def test_at_least_fifty_forms_were_tried() -> None:
    assert len(set(PRIVATE_URLS)) >= 100


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "fe80::1%eth0",
        "fd12::1",
        "0.0.0.0",
        "224.0.0.251",
        "255.255.255.255",
        "not an address",
        "",
    ],
)
def test_a_host_is_judged_by_the_addresses_that_it_resolves_to(connections: list[Any], address: str) -> None:
    assert reason(at(address), "http://pictures.example.com/a.jpg") == "refused_address"
    assert reason(at("93.184.216.34", address), "https://pictures.example.com/a.jpg") == "refused_address"
    assert connections == []


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"])
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    assert is_public(address)
    assert not is_intranet(address)


def test_the_address_that_was_checked_is_the_one_that_is_reached(connections: list[Any]) -> None:
    answers = iter([["2606:4700:0:dead::1"], ["127.0.0.1"], ["127.0.0.1"]])
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    with pytest.raises(ContentError):
        Fetcher(WebLimits(seconds=0.3), resolve=rebinding).fetch("http://rebind.example.com:81/", MB)
    assert asked == ["rebind.example.com"]
    assert [address[0] for address in connections] == ["2606:4700:0:dead::1"]


def test_private_networks_open_by_an_option_and_metadata_never(server: PictureServer, connections: list[Any]) -> None:
    server.pages["/a"] = b"picture"
    assert Fetcher(LOCAL).fetch(server.url("/a"), MB) == b"picture"
    connections.clear()
    for host in ("169.254.169.254", "[fd00:ec2::254]", "[fe80::1]", "0.0.0.0", "224.0.0.1", "[64:ff9b::a9fe:a9fe]"):
        assert reason(Fetcher(LOCAL), f"http://{host}/") == "refused_address"
    assert connections == []


def test_the_refusal_of_a_private_address_names_the_option() -> None:
    with pytest.raises(ContentError, match="allow it with --allow-private"):
        at("10.0.0.1").fetch("http://intranet/a.jpg", MB)


def test_credentials_are_refused_and_never_repeated() -> None:
    with pytest.raises(ContentError, match=r"\*\*\*@host") as caught:
        parse_url("https://user:secret@host/a.jpg")
    assert "secret" not in str(caught.value)
    assert without_credentials("https://u:p@host/a@b.jpg") == "https://***@host/a@b.jpg"
    assert without_credentials("https://host/a@b.jpg") == "https://host/a@b.jpg"


@pytest.mark.parametrize(
    ("url", "host", "port", "target"),
    [
        ("http://example.com", "example.com", 80, "/"),
        ("HTTPS://Example.COM:8443/a%20b.jpg?x=1&y=2#part", "example.com", 8443, "/a%20b.jpg?x=1&y=2"),
        ("https://bücher.example/käse.jpg", "xn--bcher-kva.example", 443, "/k%C3%A4se.jpg"),
        ("https://8.8.8.8/a", "8.8.8.8", 443, "/a"),
        ("https://[2606:4700::1]/a;b", "2606:4700::1", 443, "/a;b"),
        ("https://images_1.example.com/", "images_1.example.com", 443, "/"),
    ],
)
def test_an_honest_url_is_read_in_parts(url: str, host: str, port: int, target: str) -> None:
    address = parse_url(url)
    assert (address.host, address.port, address.target) == (host, port, target)


PIECES = st.sampled_from(
    [
        *"/@[]%?#.1 é:\\\0\u3002\udce9",
        "http",
        "HTTPS",
        "://",
        "//",
        "127.0.0.1",
        "[::1]",
        "0x7f",
        "example.com",
        ":80",
        ":x",
        "a" * 64,
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.lists(PIECES, max_size=9).map("".join), st.text().map("http://{}".format), st.text()))
def test_any_text_is_a_plain_address_or_a_bad_url(text: str) -> None:
    try:
        address = parse_url(text)
    except ContentError as error:
        assert error.reason == "bad_url"  # noqa: PT017
        return
    assert (address.host + address.target).isascii()
    assert 0 < address.port < 65536
    assert address.target.startswith("/")
    assert not set(address.host + address.target) & set(" \r\n\t\0\\@") - {"@"}
    assert "@" not in address.host


@settings(max_examples=500, deadline=None)
@given(st.ip_addresses())
def test_what_is_public_is_nobody_s_private_address(address: Any) -> None:
    reached = getattr(address, "ipv4_mapped", None) or address
    if address in ip_network("64:ff9b::/96"):  # translated to IPv4 on the way
        reached = ip_address(int(address) & 0xFFFFFFFF)
    closed = reached.is_private or reached.is_loopback or reached.is_link_local or reached.is_multicast
    closed = closed or reached.is_reserved or reached.is_unspecified
    assert not (is_public(str(address)) and closed)
    assert not (is_public(str(address)) and is_intranet(str(address)))


def test_an_error_of_content_goes_through_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(ContentError("timeout", "too slow")))
    assert (error.reason, error.detail, str(error)) == ("timeout", "too slow", "timeout: too slow")


# --- redirects


def test_redirects_are_followed_and_relative_ones_joined(server: PictureServer) -> None:
    server.pages |= {"/a": (302, {"Location": "b?x=1"}, b""), "/b?x=1": (301, {"Location": server.url("/c")}, b"")}
    server.pages["/c"] = b"picture"
    assert Fetcher(LOCAL).fetch(server.url("/a"), MB) == b"picture"


def test_redirects_end(server: PictureServer) -> None:
    server.pages["/a"] = (302, {"Location": "/a"}, b"")
    assert reason(Fetcher(LOCAL), server.url("/a")) == "too_many_redirects"
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("http://169.254.169.254/latest/", "refused_address"),
        ("//[fe80::1]/", "refused_address"),
        ("http://0x7f000001/", "bad_url"),
        ("http://u:p@127.0.0.1/", "bad_url"),
        ("file:///etc/passwd", "bad_url"),
        ("ftp://127.0.0.1/", "bad_url"),
        ("javascript:alert(1)", "bad_url"),
        ("http://[", "bad_url"),
    ],
)
def test_each_hop_is_guarded_again(server: PictureServer, connections: list[Any], target: str, why: str) -> None:
    server.pages["/a"] = (302, {"Location": target}, b"")
    assert reason(Fetcher(LOCAL), server.url("/a")) == why
    assert connections == [server.server_address]


def test_a_public_host_cannot_redirect_into_a_private_network(server: PictureServer) -> None:
    def resolve(host: str, port: int) -> list[str]:
        return {"127.0.0.1": ["127.0.0.1"], "inner.example.com": ["169.254.169.254"]}[host]

    server.pages["/a"] = (307, {"Location": "http://inner.example.com/"}, b"")
    assert reason(Fetcher(LOCAL, resolve), server.url("/a")) == "refused_address"


def test_the_name_of_the_host_is_sent_to_the_checked_address(server: PictureServer) -> None:
    server.pages["/a"] = b"picture"
    fetcher = Fetcher(LOCAL, resolve=lambda host, port: ["127.0.0.1"])
    assert fetcher.fetch(server.url("/a", "pictures.example.com"), MB) == b"picture"
    assert server.asked == [("/a", f"pictures.example.com:{server.server_address[1]}")]


# --- limits


def test_a_picture_that_says_it_is_too_large_is_not_read(server: PictureServer) -> None:
    server.pages["/a"] = (200, {"Content-Length": "99999999999"}, b"x")
    assert reason(Fetcher(LOCAL), server.url("/a")) == "too_large"


def test_a_picture_without_end_is_left_at_the_limit(server: PictureServer) -> None:
    server.pages["/a"] = endless
    assert reason(Fetcher(LOCAL), server.url("/a"), 10 * MB) == "too_large"


@pytest.mark.parametrize("page", [dripping, silent])
def test_a_slow_server_is_left_at_the_time_limit(server: PictureServer, page: Any) -> None:
    server.pages["/a"] = page
    started = time.monotonic()
    assert reason(Fetcher(WebLimits(seconds=0.4, allow_private=True)), server.url("/a")) == "timeout"
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ((404, {}, b"no"), "http_status"),
        ((500, {}, b""), "http_status"),
        ((204, {}, b""), "http_status"),
        ((302, {}, b"nowhere"), "http_status"),
        ((200, {"Content-Length": "100"}, b"short"), "truncated"),
        ((200, {"Transfer-Encoding": "chunked", "Content-Length": None}, b"zz\r\n"), "http_error"),
        (raw(b""), "http_error"),
        (raw(b"not http at all\r\n\r\n"), "http_error"),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"), "http_error"),
        (raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n"), "http_error"),
    ],
)
def test_a_bad_answer_is_a_reason(server: PictureServer, page: Any, why: str) -> None:
    server.pages["/a"] = page
    assert reason(Fetcher(LOCAL), server.url("/a")) == why


def test_a_port_where_nobody_listens_and_a_name_that_is_none_are_reasons() -> None:
    with serving() as gone:
        url = gone.url("/a")
    assert reason(Fetcher(LOCAL), url) == "unreachable"
    assert reason(Fetcher(LOCAL), "http://no-such-host.invalid/") == "unreachable"


def test_a_server_without_tls_is_a_reason(server: PictureServer) -> None:
    url = server.url("/a").replace("http:", "https:")
    assert reason(Fetcher(WebLimits(seconds=2, allow_private=True)), url) in ("http_error", "timeout")


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A certificate for `pictures.example.com`, trusted for the length of a test; its key is in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl is absent: a certificate has to be made")
    name = "pictures.example.com"
    made = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")]
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *made]
    subprocess.run(command, check=True, capture_output=True)
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "key").read_bytes() + (tmp_path / "cert").read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
    tls.cache_clear()
    yield both
    tls.cache_clear()


def test_https_sends_the_name_and_checks_the_certificate_for_it(server: PictureServer, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    context.sni_callback = lambda sock, name, context: names.append(name)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.pages["/a"] = b"picture"
    fetcher = Fetcher(LOCAL, resolve=lambda host, port: ["127.0.0.1"])
    url = server.url("/a", "pictures.example.com").replace("http:", "https:")
    assert fetcher.fetch(url, MB) == b"picture"
    assert names == ["pictures.example.com"]
    assert reason(fetcher, url.replace("pictures", "other")) == "http_error"


def test_proxies_of_the_environment_are_not_used(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.pages["/a"] = b"picture"
    assert Fetcher(LOCAL).fetch(server.url("/a"), MB) == b"picture"


# --- tables


def test_urls_are_rejected_unless_allowed_and_the_reason_names_the_option(tmp_path: Path) -> None:
    path = table(tmp_path, "https://example.com/a.jpg", "HTTP://example.com/b.jpg", "s3://bucket/c.jpg")
    entries = list(open_source(path, SourceOptions(image="url")).items())
    assert [entry.reason for entry in entries if isinstance(entry, Rejection)] == ["url"] * 3
    assert all("--allow-urls" in entry.detail for entry in entries if isinstance(entry, Rejection))


def test_a_url_is_the_id_of_its_image_and_may_hold_semicolons(tmp_path: Path) -> None:
    cell = "https://example.com/a;b.jpg; https://example.com/c.jpg"
    entries = list(open_source(table(tmp_path, cell), SourceOptions(image="url", allow_urls=True)).items())
    assert [entry.item_id for entry in entries] == ["https://example.com/a;b.jpg", "https://example.com/c.jpg"]
    assert all(isinstance(entry, Item) for entry in entries)


def test_bad_urls_are_rejected_before_anything_is_fetched(tmp_path: Path) -> None:
    path = table(tmp_path, "ftp://example.com/a", "https://u:secret@example.com/a", "http://0x7f.1/")
    entries = list(open_source(path, SourceOptions(image="url", allow_urls=True)).items())
    assert [entry.reason for entry in entries if isinstance(entry, Rejection)] == ["bad_url"] * 3
    assert "secret" not in repr(entries)


def test_options_that_have_no_effect_are_refused(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", "red")
    with pytest.raises(SourceError, match="names no images by URL"):
        open_source(tmp_path, SourceOptions(allow_urls=True))
    with pytest.raises(SourceError, match="give --allow-urls beside it"):
        open_source(tmp_path, SourceOptions(allow_private=True))


@pytest.fixture
def gallery(server: PictureServer, tmp_path: Path) -> Path:
    """A table of 24 pictures on a server, with captions."""
    colours = [("red", "green", "blue", "yellow")[n % 4] for n in range(24)]
    for n, colour in enumerate(colours):
        server.pages[f"/{n}.png"] = paint(tmp_path / "one.png", colour, noise=n).read_bytes()
    urls = [server.url(f"/{n}.png") for n in range(24)]
    return table(tmp_path, *urls, caption=[f"a {colour} square" for colour in colours], n=list(range(24)))


WEB = SourceOptions(image="url", text="caption", allow_urls=True, allow_private=True)


def test_pictures_of_urls_are_indexed(gallery: Path, server: PictureServer, tmp_path: Path) -> None:
    report = build_index(gallery, tmp_path / "out", encoder=ColourEncoder(), options=WEB)
    counts = report.manifest.counts
    assert (counts.images, counts.texts, counts.pairs, counts.rejected) == (24, 24, 24, 0)
    assert len(server.asked) == 24
    assert 1 < server.most <= 16
    with IndexStore.open(tmp_path / "out").open_version() as version:
        row = version.catalog.rows("images", [5])[0]
    assert (row["uri"], row["item_id"], row["width"], row["n"]) == (server.url("/5.png"), row["uri"], 40, 5)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_every_kind_of_table_may_name_urls(gallery: Path, tmp_path: Path, suffix: str) -> None:
    rows = [json.loads(line) for line in gallery.read_text("utf-8").splitlines()]
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        path.write_text("url,caption\n" + "".join(f"{row['url']},{row['caption']}\n" for row in rows), "utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    report = build_index(path, tmp_path / "out", encoder=ColourEncoder(), options=WEB)
    assert report.manifest.counts.images == 24


def test_urls_that_fail_are_counted_by_reason(gallery: Path, server: PictureServer, tmp_path: Path) -> None:
    server.pages |= {
        "/0.png": (404, {}, b""),
        "/1.png": b"<html>",
        "/2.png": endless,
        "/3.png": (302, {"Location": "http://169.254.169.254/"}, b""),
    }
    report = build_index(gallery, tmp_path / "out", encoder=ColourEncoder(), options=WEB, max_file_bytes=MB)
    assert report.rejected == {"http_status": 1, "not_an_image": 1, "too_large": 1, "refused_address": 1}
    assert report.manifest.counts.images == 20


def test_an_update_fetches_only_what_it_does_not_have(gallery: Path, server: PictureServer, tmp_path: Path) -> None:
    page, server.pages["/0.png"] = server.pages["/0.png"], (503, {}, b"")
    build_index(gallery, tmp_path / "out", encoder=ColourEncoder(), options=WEB)
    server.pages["/0.png"] = page
    server.asked.clear()
    options = SourceOptions(allow_urls=True, allow_private=True)
    report = build_index(gallery, tmp_path / "out", encoder=(encoder := ColourEncoder()), options=options, update=True)
    assert [path for path, _ in server.asked] == ["/0.png"]
    assert encoder.images_encoded == 1
    assert (report.manifest.counts.images, report.manifest.counts.rejected) == (24, 0)


def test_an_update_fetches_nothing_unless_it_is_allowed_again(
    gallery: Path, server: PictureServer, tmp_path: Path
) -> None:
    build_index(gallery, tmp_path / "out", encoder=ColourEncoder(), options=WEB)
    server.asked.clear()
    with pytest.raises(BuildError, match="give --allow-urls again"):
        build_index(gallery, tmp_path / "out", encoder=ColourEncoder(), update=True)
    assert server.asked == []


def test_a_killed_build_does_not_fetch_finished_shards_again(
    gallery: Path, server: PictureServer, tmp_path: Path
) -> None:
    class Failing(ColourEncoder):
        def encode_pixels(self, pixels):  # type: ignore[no-untyped-def]
            if self.images_encoded >= 12:
                raise KeyboardInterrupt
            return super().encode_pixels(pixels)

    cut = {"shard_cost": 4, "batch_size": 4}
    with pytest.raises(KeyboardInterrupt):
        build_index(gallery, tmp_path / "out", encoder=Failing(), options=WEB, **cut)
    time.sleep(0.2)
    server.asked.clear()
    report = build_index(gallery, tmp_path / "out", encoder=ColourEncoder(), options=WEB, **cut)
    assert report.manifest.counts.images == 24
    assert 0 < len(server.asked) < 24


def test_the_command_says_what_to_give(gallery: Path, tmp_path: Path) -> None:
    arguments = [str(gallery), "--image", "url", "--out", str(tmp_path / "out"), "--quiet", "--max-rejected", "0"]
    result = CliRunner().invoke(build, [*arguments, "--encoder", "lite", "--allow-private"])
    assert "give --allow-urls beside it" in str(result.exception)
