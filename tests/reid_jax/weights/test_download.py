"""Downloads over the loopback interface, from a server and a network with every fault."""

import hashlib
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import file_server
import pytest

from reid_jax import errors
from reid_jax.weights import download

CONTENT = bytes(range(251)) * 40  # 10,040 bytes
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with file_server.serving() as server:
        server.files["/w.pth"] = CONTENT
        server.tags["/w.pth"] = '"one"'
        yield server


def fetch(server, folder, *, path="/w.pth", sha256=DIGEST, size=len(CONTENT)):
    file = folder / "w.pth"
    download.fetch(server.url + path, file, sha256=sha256, size=size)
    return file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("known", [{}, {"sha256": DIGEST[:8]}, {"sha256": None, "size": None}])
def test_a_whole_file(server, tmp_path, known):
    assert fetch(server, tmp_path, **known).read_bytes() == CONTENT
    assert names(tmp_path) == ["w.pth"] and server.requests == [("/w.pth", None)]


def test_it_replaces_an_earlier_file(server, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"old")
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_redirect_is_followed(server, tmp_path):
    server.redirects["/latest"] = "/w.pth"
    server.cuts = [3000]
    assert fetch(server, tmp_path, path="/latest").read_bytes() == CONTENT
    assert server.requests[-1] == ("/w.pth", "bytes=3000-")


def test_a_broken_connection_is_gone_on_with(server, tmp_path):
    server.cuts = [3000, 4000]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert [span for _, span in server.requests] == [None, "bytes=3000-", "bytes=7000-"]
    assert names(tmp_path) == ["w.pth"]


def test_the_next_start_goes_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_TRIES", 1)
    server.cuts = [3000]
    with pytest.raises(
        errors.UserError, match=r"/w.pth: the connection broke .*0.0 MB are there, the same command goes"
    ):
        fetch(server, tmp_path)
    assert names(tmp_path) == [".part-w.pth", ".part-w.pth.json"]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert [span for _, span in server.requests] == [None, "bytes=3000-"] and names(tmp_path) == ["w.pth"]


def test_a_connection_that_always_breaks(server, tmp_path):
    server.cuts = [1000] * 10
    with pytest.raises(errors.UserError, match="the connection broke"):
        fetch(server, tmp_path)
    assert len(server.requests) == download._TRIES


@pytest.mark.parametrize("fault", ["no ranges", "no tag", "weak tag", "another file", "another url", "bad note"])
def test_it_begins_anew_where_it_cannot_go_on(server, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(download, "_TRIES", 1)
    server.cuts = [3000]
    if fault == "weak tag":
        server.tags["/w.pth"] = 'W/"one"'
    elif fault == "no tag":
        del server.tags["/w.pth"]
    with pytest.raises(errors.UserError, match="the connection broke"):
        fetch(server, tmp_path)
    path, content = "/w.pth", CONTENT
    if fault == "no ranges":
        server.knows_ranges = False
    elif fault == "another file":
        content = server.files["/w.pth"] = CONTENT[::-1]
        server.tags["/w.pth"] = '"two"'
    elif fault == "another url":
        path, content = "/other", CONTENT[::-1]
        server.files["/other"], server.tags["/other"] = content, '"one"'
    elif fault == "bad note":
        (tmp_path / ".part-w.pth.json").write_text("[1")
    file = fetch(server, tmp_path, path=path, sha256=hashlib.sha256(content).hexdigest())
    assert file.read_bytes() == content and names(tmp_path) == ["w.pth"]
    # Only these are found out by asking.
    asked = fault in ("no ranges", "another file")
    assert [span for _, span in server.requests] == [None, "bytes=3000-" if asked else None]


def test_a_server_that_sends_another_part_than_asked_for(server, tmp_path, monkeypatch):
    server.cuts = [3000]
    monkeypatch.setattr(download, "_SPAN", re.compile(r"bytes \d(\d+)-"))  # as if it said 000 for 3000
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert [span for _, span in server.requests] == [None, "bytes=3000-", None]


def test_a_file_that_became_shorter(server, tmp_path):
    """What is there is more than the server has: 416, and from the beginning."""
    server.files["/w.pth"] = CONTENT[:2000]
    part = tmp_path / ".part-w.pth"
    part.write_bytes(CONTENT[:3000])
    (tmp_path / ".part-w.pth.json").write_text(json.dumps({"url": f"{server.url}/w.pth", "validator": '"one"'}))
    file = fetch(server, tmp_path, sha256=hashlib.sha256(CONTENT[:2000]).hexdigest(), size=2000)
    assert file.read_bytes() == CONTENT[:2000] and [s for _, s in server.requests] == ["bytes=3000-", None]


@pytest.mark.parametrize("sha256", ["0" * 64, "00000000"])
def test_wrong_bytes_are_not_kept(server, tmp_path, sha256):
    with pytest.raises(
        errors.UserError, match=f"nothing is kept: its sha256 is {DIGEST}, the published file's {sha256}"
    ):
        fetch(server, tmp_path, sha256=sha256)
    assert names(tmp_path) == []


def test_another_size_is_not_even_read(server, tmp_path):
    with pytest.raises(errors.UserError, match="the server's file has 10,040 bytes, the published one 10,041"):
        fetch(server, tmp_path, size=10_041)
    assert names(tmp_path) == []


def test_a_server_that_does_not_say_how_much_there_is(server, tmp_path, monkeypatch):
    """Such a file's end cannot be told from a broken connection: its size and sha256 tell."""
    from http.server import BaseHTTPRequestHandler

    send = BaseHTTPRequestHandler.send_header
    monkeypatch.setattr(
        BaseHTTPRequestHandler,
        "send_header",
        lambda self, key, value: key == "Content-Length" or send(self, key, value),
    )
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    server.cuts = [3000]
    with pytest.raises(errors.UserError, match="it has 3,000 bytes, the published file 10,040"):
        fetch(server, tmp_path)


def test_what_cannot_be_had_is_told_in_one_line(server, tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and nobody listens
        refused = f"http://127.0.0.1:{nobody.getsockname()[1]}/w.pth"
        cases = {
            f"{server.url}/none.pth": "the server says 404 Not Found",
            refused: r"no connection \(Connection refused\)",
            "http://nowhere.invalid/w.pth": "no connection",
        }
        for url, reason in cases.items():
            with pytest.raises(errors.UserError, match=reason) as told:
                download.fetch(url, tmp_path / "w.pth")
            message = str(told.value)
            assert message.startswith(f"{url}: ") and message.endswith("reid weights import w.pth")
            assert len(message.splitlines()) == 1
    assert names(tmp_path) == []


def test_a_safe_url_that_leads_to_an_unsafe_one(server, tmp_path, monkeypatch):
    open_url = download.urllib.request.urlopen

    def without_tls(request, **options):
        request.full_url = request.full_url.replace("https:", "http:")
        return open_url(request, **options)

    monkeypatch.setattr(download.urllib.request, "urlopen", without_tls)
    with pytest.raises(errors.UserError, match="it leads to http:.* which is not https"):
        download.fetch(f"{server.url.replace('http:', 'https:')}/w.pth", tmp_path / "w.pth")
    assert names(tmp_path) == []


def test_killed_in_the_middle_nothing_looks_finished(server, tmp_path):
    server.pause = 0.5
    part = tmp_path / ".part-w.pth"
    code = "import pathlib, sys; from reid_jax.weights import download as d; d._BLOCK = 1000; "
    code += "d.fetch(sys.argv[1], pathlib.Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", code, f"{server.url}/w.pth", tmp_path / "w.pth"])
    while not (part.exists() and server.requests):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.6)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert names(tmp_path) == [".part-w.pth", ".part-w.pth.json"]
    server.pause = 0.0
    assert fetch(server, tmp_path).read_bytes() == CONTENT and names(tmp_path) == ["w.pth"]


def test_one_process_downloads_at_a_time(tmp_path):
    folder = tmp_path / "new" / "downloads"
    with download.locked(folder):
        with pytest.raises(errors.BusyError, match="another process is downloading into"), download.locked(folder):
            pass
    with download.locked(folder):
        pass


def test_check_file(tmp_path):
    file = pathlib.Path(tmp_path, "w")
    file.write_bytes(CONTENT)
    assert download.check_file(file) == download.check_file(file, sha256=DIGEST[:8], size=len(CONTENT)) == DIGEST
    with pytest.raises(errors.UserError, match="it has 10,040 bytes, the published file 3"):
        download.check_file(file, size=3)
