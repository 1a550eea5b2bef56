from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from paperbench.catalog import DATASETS
from paperbench.data import downloads
from paperbench.data.archives import ARCHIVES, Archive
from paperbench.engine.reporter import SilentReporter
from paperbench.errors import ConfigError, DataError, DiskFullError, EnvironmentError_
from tests.data.test_unpack import make_tar, make_zip

FILES = {f"PennFudanPed/Annotation/{k}.txt": bytes(f"{k}" * 200, "ascii") for k in range(3)}


class Listener(SilentReporter):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.phases: dict[str, tuple[int, int]] = {}

    def message(self, text: str) -> None:
        self.messages.append(text)

    def progress(self, phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
        self.phases[phase] = (done, total)


class Server:
    """Serves one file as /set.zip; `ranges` and `cut_after` make it better or worse than a plain server."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.ranges = True
        self.cut_after: int | None = None
        self.status: int | None = None
        self.asked: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                server.asked.append(asked)
                if server.status is not None:
                    self.send_error(server.status)
                    return
                first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
                body = server.content[first:]
                self.send_response(206 if first else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: server.cut_after])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/set.zip"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "_PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "*")
    running = Server(make_zip(tmp_path / "published.zip", FILES).read_bytes())
    yield running
    running.close()


def publish(server: Server, monkeypatch: pytest.MonkeyPatch, **changes: object) -> Archive:
    """The server's file as the archive named `tiny`."""
    facts: dict = {
        "url": server.url,
        "size": len(server.content),
        "md5": hashlib.md5(server.content).hexdigest(),
        "unpacked": 1000,
        "folder": "PennFudanPed",
        "last": "PennFudanPed",
        "holds": (("PennFudanPed/Annotation/*.txt", 3),),
    }
    archive = Archive(**{**facts, **changes})
    monkeypatch.setitem(ARCHIVES, "tiny", archive)
    return archive


def complete(root: Path) -> bool:
    return all((root / name).read_bytes() == content for name, content in FILES.items())


def test_fetched_verified_unpacked_and_tidied(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch)
    listener = Listener()
    root = tmp_path / "data"
    assert downloads.get("tiny", root, listener) == root / "PennFudanPed"
    assert complete(root)
    assert [p.name for p in (root / ".downloads").iterdir()] == []
    assert listener.phases == {"download set.zip (MiB)": (0, 1), "unpack tiny": (3, 3)}


def test_what_is_there_is_not_fetched_again(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch)
    for _ in range(2):
        downloads.get("tiny", tmp_path, Listener())
    assert len(server.asked) == 1
    (tmp_path / "PennFudanPed" / "Annotation" / "1.txt").unlink()
    downloads.get("tiny", tmp_path, Listener())
    assert len(server.asked) == 2
    assert complete(tmp_path)


def test_an_interrupted_download_goes_on_where_it_ended(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch)
    (tmp_path / ".downloads").mkdir()
    (tmp_path / ".downloads" / "set.zip.part").write_bytes(server.content[:100])
    downloads.get("tiny", tmp_path, Listener())
    assert server.asked == ["bytes=100-"]
    assert complete(tmp_path)


def test_a_connection_that_breaks_is_taken_up_again(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch)
    server.cut_after = -(-len(server.content) // 3)
    listener = Listener()
    downloads.get("tiny", tmp_path, listener)
    assert server.asked == [None, f"bytes={server.cut_after}-", f"bytes={2 * server.cut_after}-"]
    assert complete(tmp_path)
    assert "the connection ended" in listener.messages[0]


def test_a_server_without_ranges_sends_everything_again(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch)
    server.ranges = False
    (tmp_path / ".downloads").mkdir()
    (tmp_path / ".downloads" / "set.zip.part").write_bytes(b"x" * 100)
    downloads.get("tiny", tmp_path, Listener())
    assert complete(tmp_path)


def test_a_wrong_checksum_removes_the_file(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, md5="0" * 32)
    with pytest.raises(
        DataError, match=f"has MD5 {hashlib.md5(server.content).hexdigest()}, the published file 0000"
    ) as error:
        downloads.get("tiny", tmp_path, Listener())
    assert "run the same command again" in str(error.value)
    assert not list(tmp_path.glob("**/set.zip*"))
    assert not (tmp_path / "PennFudanPed").exists()


def test_a_login_page_is_not_taken_for_the_archive(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch, size=10_000_000)
    with pytest.raises(DataError, match=f"offers {len(server.content)} bytes, the published file has 10000000"):
        downloads.get("tiny", tmp_path, Listener())


def test_a_member_that_leaves_the_folder_is_refused(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = make_tar(tmp_path / "evil.tar", {**FILES, "../../evil": b"evil"}).read_bytes()
    publish(server, monkeypatch)
    with pytest.raises(DataError, match=r"refused: member '\.\./\.\./evil'"):
        downloads.get("tiny", tmp_path / "a" / "b", Listener())
    assert not list(tmp_path.glob("**/evil"))
    assert not (tmp_path / "a" / "b" / "PennFudanPed").exists()


def test_an_archive_that_lacks_something_is_not_put_in_place(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch, md5=None, holds=(("PennFudanPed/Annotation/*.txt", 170),))
    with pytest.raises(DataError, match=r"it holds only 3 of 170 files PennFudanPed/Annotation/\*\.txt"):
        downloads.get("tiny", tmp_path, Listener())
    assert not (tmp_path / "PennFudanPed").exists()


def test_offline_says_how_to_do_it_by_hand(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch)
    server.close()
    with pytest.raises(DataError) as error:
        downloads.get("tiny", tmp_path, Listener())
    assert server.url in str(error.value)
    assert f"put the file at {tmp_path / 'set.zip'}" in str(error.value)


def test_a_refusal_is_not_repeated(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch)
    server.status = 404
    with pytest.raises(DataError, match="the server answers 404 Not Found"):
        downloads.get("tiny", tmp_path, Listener())
    assert len(server.asked) == 1
    server.status = 503
    with pytest.raises(DataError, match="503"):
        downloads.get("tiny", tmp_path, Listener())
    assert len(server.asked) == 5


def test_a_file_put_there_by_hand_is_used_and_kept(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch)
    (tmp_path / "set.zip").write_bytes(server.content)
    downloads.get("tiny", tmp_path, Listener())
    assert server.asked == []
    assert complete(tmp_path)
    assert (tmp_path / "set.zip").exists()


def test_a_wrong_file_put_there_by_hand_is_named_and_kept(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch)
    (tmp_path / "set.zip").write_bytes(server.content[:-1])
    with pytest.raises(
        DataError, match=f"has {len(server.content) - 1} bytes, the published file {len(server.content)}"
    ):
        downloads.get("tiny", tmp_path, Listener())
    assert (tmp_path / "set.zip").exists()


def test_a_disk_without_room_is_noticed_first(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, unpacked=shutil.disk_usage(tmp_path).total + 1)
    with pytest.raises(DiskFullError, match=r"needs about .* GB free"):
        downloads.get("tiny", tmp_path, Listener())
    assert server.asked == []


def test_a_root_that_is_a_file(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch)
    (tmp_path / "data").touch()
    with pytest.raises(EnvironmentError_, match=r"cannot write .*data.*--root"):
        downloads.get("tiny", tmp_path / "data", Listener())


def test_unknown_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="voc2007-trainval"):
        downloads.get("voc2008", tmp_path, Listener())


def test_every_archive_of_the_catalogue_is_described() -> None:
    named = [name for spec in DATASETS.values() for name in spec.archives]
    assert sorted(named) == sorted(ARCHIVES)
    for archive in ARCHIVES.values():
        assert archive.url.startswith(("https://", "http://images.cocodataset.org/", "http://ufldl.stanford.edu/"))
        assert archive.md5 is None or len(archive.md5) == 32
        assert archive.last.startswith(archive.folder)
        assert all(pattern.startswith(archive.folder.split("/")[0]) for pattern, _ in archive.holds)
