"""`paperbench data get`: download the published archives, verify them, unpack them.

An interrupted download continues where it ended. A data set that is present is never downloaded again, and an archive that
the user has put below `data.root` is used (and left there).
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from paperbench.config.paths import expanded
from paperbench.data.archives import ARCHIVES, Archive
from paperbench.data.unpack import merge, unpack, writing
from paperbench.engine.reporter import Reporter
from paperbench.errors import ConfigError, DataError, DiskFullError

_WORK: Final = ".downloads"
_CHUNK: Final = 2**20
_ATTEMPTS: Final = 4
_TIMEOUT: Final = 60.0
_MIB: Final = 2**20
_PAUSE = 1.0  # seconds, times 2, 4, 8 between attempts


def get(archive: str, root: Path, reporter: Reporter) -> Path:
    """Make sure that the content of `archive` (a name of `archives.ARCHIVES`) lies below `root`; return its folder.

    Raises DataError if the file cannot be downloaded or is not the published one, DiskFullError before a byte is fetched that
    would not fit, ConfigError for an unknown name.
    """
    if archive not in ARCHIVES:
        raise ConfigError(f"{archive}: no such archive; there are {', '.join(ARCHIVES)}")
    spec = ARCHIVES[archive]
    root = expanded(root)
    folder = root / spec.folder
    if spec.present(root):
        reporter.message(f"{archive}: is here already: {folder}")
        return folder

    work = root / _WORK
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
    by_hand = root / spec.filename
    file = by_hand if by_hand.is_file() else work / spec.filename
    part = work / f"{spec.filename}.part"
    if not file.is_file():
        _need(root, spec.size - (part.stat().st_size if part.is_file() else 0) + spec.unpacked)
        _download(spec, part, by_hand, reporter)
        _verify(spec, part)
        part.replace(file)
    else:
        _need(root, spec.unpacked)
        _verify(spec, file)

    fresh = work / f"{archive}.unpacked"
    shutil.rmtree(fresh, ignore_errors=True)
    with writing(fresh):
        (fresh / spec.into).mkdir(parents=True)
    if spec.plain:
        with writing(fresh):
            shutil.copyfile(file, fresh / spec.into / spec.filename)
    else:
        unpack(file, fresh / spec.into, lambda done, total: reporter.progress(f"unpack {archive}", done, total, {}))
    lacking = spec.lacking(fresh)
    if lacking:
        shutil.rmtree(fresh, ignore_errors=True)
        raise DataError(
            f"{file}: is not the published archive: it holds only {'; '.join(lacking)}. Remove it and try again"
        )
    merge(fresh, root, last=root / spec.last)
    shutil.rmtree(fresh, ignore_errors=True)
    if file != by_hand:
        file.unlink()
    reporter.message(f"{archive}: {folder}")
    return folder


def _need(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if needed > free:
        raise DiskFullError(
            f"{root}: needs about {needed / 1e9:.1f} GB free to download and unpack, has {free / 1e9:.1f} GB; "
            "free some space or choose another place with --root"
        )


def _download(spec: Archive, part: Path, by_hand: Path, reporter: Reporter) -> None:
    """Fetch what is missing of the file into `part`; several attempts, each going on where the last one ended."""
    trouble = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            reporter.message(f"{spec.filename}: {trouble}; trying again")
            time.sleep(min(2**attempt, 10) * _PAUSE)
        try:
            _fetch(spec, part, reporter)
        except urllib.error.HTTPError as error:
            trouble = f"the server answers {error.code} {error.reason}"
            if error.code < 500:
                break
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            trouble = str(getattr(error, "reason", "") or error or type(error).__name__)
        else:
            have = part.stat().st_size
            if have == spec.size:
                return
            trouble = f"the connection ended after {have} of {spec.size} bytes"
    raise DataError(
        f"{spec.url}: could not be downloaded: {trouble}.\n"
        f"  The part downloaded so far stays: the same command continues from there.\n"
        f"  By hand: fetch that address elsewhere and put the file at {by_hand}, then run the same command"
    )


def _fetch(spec: Archive, part: Path, reporter: Reporter) -> None:
    have = part.stat().st_size if part.is_file() else 0
    if have > spec.size:
        part.unlink()
        have = 0
    if have == spec.size:
        return
    request = urllib.request.Request(spec.url, headers={"User-Agent": "paperbench"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    began, first, reported = time.monotonic(), have, 0.0
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        if have and response.status != http.client.PARTIAL_CONTENT:  # a server that cannot go on sends all of it
            have = first = 0
        announced = response.headers.get("Content-Length")
        if announced is not None and have + int(announced) != spec.size:
            raise DataError(
                f"{spec.url}: the server offers {have + int(announced)} bytes, the published file has {spec.size}: it is "
                "another file, or a page of a network that wants a login first"
            )
        with writing(part):
            file = part.open("ab" if have else "wb")
        with file:
            while chunk := response.read(_CHUNK):
                with writing(part):  # around the write alone: what the network raises is another matter
                    file.write(chunk)
                    file.flush()
                have += len(chunk)
                now = time.monotonic()
                if now - reported > 0.2 or have == spec.size:
                    reported = now
                    rate = (have - first) / _MIB / max(now - began, 1e-6)
                    phase = f"download {spec.filename} (MiB)"
                    reporter.progress(phase, have // _MIB, -(-spec.size // _MIB), {"MiB/s": rate})


def _verify(spec: Archive, file: Path) -> None:
    """Raise DataError, and remove what was downloaded, if `file` is not the published archive."""
    size = file.stat().st_size
    if size != spec.size:
        trouble = f"has {size} bytes, the published file {spec.size}"
    elif spec.md5 is None:
        return
    else:
        with file.open("rb") as content:
            # The publishers give MD5: good against accidents of transport, which is what it is for here.
            digest = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if digest == spec.md5:
            return
        trouble = f"has MD5 {digest}, the published file {spec.md5}"
    downloaded = file.parent.name == _WORK
    if downloaded:
        file.unlink()
    remedy = "it was removed; run the same command again" if downloaded else "remove it, or put the right file there"
    raise DataError(f"{file}: {trouble}: damaged or another file; {remedy}")
