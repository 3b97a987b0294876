"""Who is answered: foreign names and origins are not, a token is asked for, and requests that do not arrive are given up."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from gpuclust.errors import ConfigurationError
from gpuclust.serve.access import access, name_of, warning
from gpuclust.serve.connection import BODY_SECONDS, HEAD_SECONDS
from tests.browser import Explorer, chromium_or_skip, explorer
from tests.exporting import made_export, tracks
from tests.serving import serving, start, stop

TOKEN = "correct-horse-battery"
EVIL = "evil.example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    return made_export(tracks(80), tmp_path_factory.mktemp("access"), store_template)


@pytest.fixture(scope="module")
def local(folder: Path) -> Iterator[Explorer]:
    with explorer(folder) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[Explorer]:
    """An explorer with a token from the environment."""
    with ExitStack() as running:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GPUCLUST_TOKEN", TOKEN)
            started = running.enter_context(explorer(folder))
        yield started


def raw(address: str, lines: list[str], *, path: str = "/") -> tuple[int, str]:
    """Status and headers of a request of exactly these header lines."""
    place = urlsplit(address)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=30) as connection:
        connection.sendall("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head and (part := connection.recv(65_536)):
            head += part
    text = head.partition(b"\r\n\r\n")[0].decode("latin-1")
    return int(text.split()[1]), text


def handshake(address: str, *, host: str, origin: str | None = None, more: tuple[str, ...] = ()) -> int:
    """The status of a WebSocket handshake: 101 where it is accepted."""
    lines = [f"Host: {host}", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *([f"Origin: {origin}"] if origin else []), *more]  # fmt: skip
    return raw(address, lines, path="/_stcore/stream")[0]


@pytest.mark.parametrize(
    ("host", "names", "answered", "refused"),
    [
        ("127.0.0.1", [], ["localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:80", "localhost."], [EVIL, "", f"localhost.{EVIL}", "127.0.0.1.evil.example"]),
        ("127.0.0.5", [], ["127.0.0.5:80", "localhost"], [EVIL]),
        ("::1", [], ["[::1]", "[::1]:8501"], ["[::2]", EVIL]),
        ("0.0.0.0", [], [EVIL, "music.example"], []),
        ("0.0.0.0", ["music.example"], ["music.example:443", "localhost:1"], [EVIL, "a.music.example"]),
        ("127.0.0.1", ["*.music.example"], ["a.music.example", "127.0.0.1"], ["music.example", EVIL]),
        ("127.0.0.1", ["*"], [EVIL], []),
        ("192.0.2.7", ["music.example"], ["192.0.2.7:80"], ["192.0.2.8"]),
    ],
)  # fmt: skip
def test_which_names_are_answered(host: str, names: list[str], answered: list[str], refused: list[str]) -> None:
    rules = access(host, names)
    assert [name for name in answered if not rules.answers_to(name)] == []
    assert [name for name in refused if rules.answers_to(name)] == []


def test_names_are_compared_without_port_and_case() -> None:
    assert [name_of(h) for h in ("A.B:80", "[::1]:8501", "::1", " x ")] == ["a.b", "[::1]", "[::1]", "x"]


def test_the_token_is_an_option_the_environment_or_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert access("127.0.0.1").token == ""
    made = [access("127.0.0.1", token="") for _ in range(2)]
    assert all(rules.generated and len(rules.token) >= 32 for rules in made)
    assert made[0].token != made[1].token
    monkeypatch.setenv("GPUCLUST_TOKEN", TOKEN)
    assert access("127.0.0.1").token == TOKEN
    assert access("127.0.0.1", token="another-one").token == "another-one"
    assert TOKEN not in repr(access("127.0.0.1"))
    for bad in ("short", "with a space in it", "ünïcödé-token"):
        with pytest.raises(ConfigurationError, match="at least 8"):
            access("127.0.0.1", token=bad)
    with pytest.raises(ConfigurationError, match="is not the name of a host"):
        access("127.0.0.1", ["http://music.example"])


def test_it_is_said_when_others_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert warning("127.0.0.1", access("127.0.0.1")) is None
    assert "can read this export" in str(warning("0.0.0.0", access("0.0.0.0")))
    assert warning("0.0.0.0", access("0.0.0.0", token=TOKEN)) is None


@pytest.mark.parametrize("path", ["/", "/map", "/_stcore/health", "/_stcore/host-config", "/static/x.js", "/media/x"])
def test_the_explorer_refuses_foreign_names_everywhere(local: Explorer, path: str) -> None:
    port = urlsplit(local.address).port
    for host in (EVIL, f"{EVIL}:{port}", f"127.0.0.1.{EVIL}"):
        assert raw(local.address, [f"Host: {host}"], path=path)[0] == 421
    assert raw(local.address, ["Host: localhost", f"Origin: http://{EVIL}"], path=path)[0] == 403


def test_the_websocket_refuses_foreign_names_and_origins(local: Explorer) -> None:
    port = urlsplit(local.address).port
    for host, origin in [
        (EVIL, f"http://{EVIL}"), (f"{EVIL}:{port}", f"http://{EVIL}:{port}"), (f"127.0.0.1:{port}", f"http://{EVIL}"),
        (f"127.0.0.1:{port}", "null"), (f"localhost:{port}", "http://localhost:1"), (EVIL, None),
    ]:  # fmt: skip
        assert 400 <= handshake(local.address, host=host, origin=origin) < 500, (host, origin)


def test_the_explorer_answers_to_its_own_names_behind_any_port(local: Explorer) -> None:
    port = urlsplit(local.address).port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "localhost:9999", "localhost"):
        assert raw(local.address, [f"Host: {host}"])[0] == 200, host
        assert handshake(local.address, host=host, origin=f"http://{host}") == 101, host
    assert handshake(local.address, host=f"localhost:{port}") == 101, "a client without an origin is no page"


def test_a_name_can_be_allowed(folder: Path) -> None:
    with explorer(folder, "--allowed-hosts", "music.example") as running:
        assert raw(running.address, ["Host: music.example"])[0] == 200
        assert handshake(running.address, host="music.example", origin="https://music.example") == 101
        # A proxy may ask by another name than the page has.
        assert handshake(running.address, host="127.0.0.1", origin="https://music.example") == 101
        assert raw(running.address, [f"Host: {EVIL}"])[0] == 421
        assert 400 <= handshake(running.address, host="127.0.0.1", origin=f"https://{EVIL}") < 500


def test_the_explorer_asks_for_the_token(guarded: Explorer) -> None:
    address = guarded.address
    assert "token" not in address, "who gave it knows it"
    for path in ("/", "/map", "/_stcore/health", "/_stcore/host-config", "/static/x.js", "/?token=wrong-token-x"):
        answer = httpx.get(address + path)
        assert answer.status_code == 401, path
        assert "set-cookie" not in answer.headers
    assert handshake(address, host="localhost") == 403
    assert handshake(address, host="localhost", more=("Cookie: gpuclust-00000000=1",)) == 403
    with httpx.Client(base_url=address) as visitor:
        entered = visitor.get("/map", params={"token": TOKEN, "cluster": "2"})
        assert entered.status_code == 200
        assert 'content="0;url=/map?cluster=2"' in entered.text
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert TOKEN not in cookie
        assert TOKEN not in entered.text
        assert visitor.get("/").status_code == 200
        sent = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    assert handshake(address, host="localhost", more=(f"Cookie: {sent}",)) == 101
    assert handshake(address, host="localhost", origin=f"http://{EVIL}", more=(f"Cookie: {sent}",)) == 403
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{address}/_stcore/health", headers=bearer).status_code == 200


def test_the_entrance_leads_nowhere_else(guarded: Explorer) -> None:
    answer = raw(guarded.address, ["Host: localhost"], path=f"//{EVIL}/x?token={TOKEN}")
    assert answer[0] == 200
    place = urlsplit(guarded.address)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=30) as connection:
        connection.sendall(
            f"GET //{EVIL}/x?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        text = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
    assert f'content="0;url=/{EVIL}/x"' in text


def test_a_token_that_is_made_is_printed_once_and_opens_the_page(folder: Path) -> None:
    with explorer(folder, "--token") as running:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32,}", running.address)
        assert httpx.get(running.address).status_code == 200
        assert httpx.get(running.address.partition("?")[0]).status_code == 401


def test_the_token_of_the_environment_is_not_in_the_list_of_processes(guarded: Explorer) -> None:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert TOKEN.encode() not in path.read_bytes()
        except OSError:  # it has ended
            continue


def test_the_api_asks_for_the_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCLUST_TOKEN", TOKEN)
    with serving(folder, "--cors", "https://music.example", "--workers", "2") as address:
        for path in ("/health", "/openapi.json", "/clusters", "/nothing"):
            for sent in (
                {},
                {"authorization": "Bearer wrong-token-x"},
                {"authorization": f"Basic {TOKEN}"},
                {"authorization": "Bearer"},
            ):
                answer = httpx.get(address + path, headers=sent, timeout=60)
                assert answer.status_code == 401
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert answer.json()["status"] == 401
        with httpx.Client(base_url=address, headers={"authorization": f"Bearer {TOKEN}"}) as client:
            answer = client.get("/clusters")
            assert answer.status_code == 200
            assert answer.headers["cache-control"].startswith("private"), "a shared cache must not keep it"
            assert client.get("/clusters", headers={"if-none-match": answer.headers["etag"]}).status_code == 304
            document = client.get("/openapi.json").json()
            assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
            assert all("401" in o["responses"] for verbs in document["paths"].values() for o in verbs.values())
        etag = {"if-none-match": answer.headers["etag"]}
        assert httpx.get(f"{address}/clusters", headers=etag).status_code == 401, "not even that it is unchanged"
        preflight = {
            "origin": "https://music.example",
            "access-control-request-method": "GET",
            "access-control-request-headers": "authorization",
        }
        assert httpx.options(f"{address}/clusters", headers=preflight).status_code == 200


def test_the_api_prints_a_token_that_it_makes_and_warns_where_there_is_none(folder: Path) -> None:
    process, address = start(folder, "--token")
    assert process.stdout is not None
    token = process.stdout.readline().split()[1]
    assert httpx.get(f"{address}/health", headers={"authorization": f"Bearer {token}"}).status_code == 200
    assert stop(process)[0] == 0
    process, address = start(folder, "--host", "0.0.0.0")
    assert "can read this export" in stop(process)[2]


def test_the_api_can_be_told_its_names(folder: Path) -> None:
    with serving(folder, "--host", "0.0.0.0", "--allowed-hosts", "music.example") as address:
        local = address.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{local}/health", headers={"host": "music.example"}).status_code == 200
        assert httpx.get(f"{local}/health", headers={"host": EVIL}).status_code == 421


def waits(address: str, sent: bytes, *, path: str = "") -> float:
    """Seconds until the server gives up a request of which only a part is sent."""
    place = urlsplit(address)
    began = time.monotonic()
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=90) as connection:
        connection.sendall(sent)
        connection.settimeout(1.0)
        while time.monotonic() - began < 90:
            try:
                if not connection.recv(4096):
                    break
            except TimeoutError:
                if sent:  # a byte now and then does not keep it open
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        break
            except OSError:
                break
    return time.monotonic() - began


HALVES = {
    "nothing": (b"", HEAD_SECONDS),
    "half a head": (b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nX-A: ", HEAD_SECONDS),
    "half a body": (b"POST /api/v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n{", BODY_SECONDS),
    "half a second head": (b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /api/v1/health HTTP/1.1\r\nX-A: ", HEAD_SECONDS),
}  # fmt: skip


def websocket_holds(address: str) -> bool:
    """Whether a WebSocket is open after the time that a request has to arrive."""
    place = urlsplit(address)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=HEAD_SECONDS + 2) as connection:
        connection.sendall(
            f"GET /_stcore/stream HTTP/1.1\r\nHost: {place.netloc}\r\nOrigin: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: streamlit\r\n\r\n".encode()
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 101")
        try:
            received = connection.recv(4096)
            return bool(received) and b"HTTP/1.1" not in received
        except TimeoutError:
            return True


def test_half_sent_requests_are_given_up(folder: Path, local: Explorer) -> None:
    """Three hundred of them at once, beside which the server answers as ever."""
    with serving(folder) as address, ThreadPoolExecutor(320) as pool:
        many = [pool.submit(waits, address, HALVES["half a head"][0]) for _ in range(300)]
        time.sleep(2)
        assert httpx.get(f"{address}/health", timeout=20).status_code == 200
        kinds = {name: pool.submit(waits, address, sent) for name, (sent, _) in HALVES.items()}
        explored = pool.submit(waits, local.address, HALVES["half a head"][0])
        held = pool.submit(websocket_holds, local.address)
        slow = 5.0 * float(os.environ.get("GPUCLUST_TEST_PATIENCE", "4"))  # other work on the machine
        for name, waited in kinds.items():
            least, most = (0.0 if name == "half a second head" else HALVES[name][1] - 1), HALVES[name][1] + slow
            assert least < waited.result() < most, name
        assert explored.result() < HEAD_SECONDS + slow
        assert held.result()
        assert max(one.result() for one in many) < HEAD_SECONDS + slow
        process = int(
            subprocess.run(
                ["pgrep", "-f", f"serve {folder}"], capture_output=True, text=True, check=True
            ).stdout.split()[0]
        )
        assert len(list(Path(f"/proc/{process}/fd").iterdir())) < 100


def test_a_slow_but_steady_body_is_taken(folder: Path) -> None:
    """More than the least rate, for longer than a body has at first."""
    body = b'{"rows": [' + b" " * 40_000 + b'{"tempo": 1.0}]}'
    with serving(folder) as address:
        place = urlsplit(address)
        with socket.create_connection((place.hostname or "", place.port or 0), timeout=60) as connection:
            head = f"POST /api/v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode())
            for at in range(0, len(body), 1_600):
                connection.sendall(body[at : at + 1_600])
                time.sleep(1)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.browser
def test_rebinding_a_name_reads_nothing(local: Explorer) -> None:
    """A page of a name that is made to mean 127.0.0.1, in a real browser."""
    chromium = chromium_or_skip()
    from playwright.sync_api import sync_playwright

    port = urlsplit(local.address).port
    flags = ["--no-sandbox", f"--host-resolver-rules=MAP {EVIL} 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page()
        answer = page.goto(f"http://{EVIL}:{port}/")
        assert answer is not None
        assert answer.status == 421
        opened = "new Promise(done => { const s = new WebSocket('ws://%s/_stcore/stream'); s.onopen = () => done('open'); s.onerror = () => done('refused') })"
        assert page.evaluate(opened % f"{EVIL}:{port}") == "refused"
        assert page.evaluate(opened % f"127.0.0.1:{port}") == "refused"
        page.goto(f"http://localhost:{port}/")
        page.get_by_role("heading").first.wait_for(timeout=60_000)
        browser.close()


@pytest.mark.browser
def test_the_page_works_after_the_token_was_given(folder: Path) -> None:
    chromium = chromium_or_skip()
    from playwright.sync_api import sync_playwright

    with explorer(folder, "--token") as running, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        address, _, token = running.address.partition("?token=")
        page.goto(address)
        page.get_by_label("Token").fill(token)
        page.get_by_role("button").click()
        page.get_by_role("heading", name="gpuclust", exact=True).wait_for(state="detached", timeout=60_000)
        page.get_by_role("heading").first.wait_for(timeout=60_000)
        assert token not in page.url
        browser.close()


def test_wrong_options_are_one_line(folder: Path) -> None:
    for command in ("serve", "explore"):
        for options in (
            ["--allowed-hosts", "http://x"],
            ["--token", "short"],
            ["--port", "70000"],
            ["--host", "192.0.2.1"],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "gpuclust", command, str(folder), *options],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 2, done.stderr
            assert len(done.stderr.splitlines()) == 1, done.stderr
