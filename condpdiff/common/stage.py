"""A stage that may be cut off: its inputs are what the stages before wrote, and what it has done is kept until it ends.

`tmp/unfinished/<stage>/<key>/` holds what a stage has done so far: resume points of training, and results that took
long. DVC neither caches nor removes it. The key is of the stage's parameters, code and inputs, as dvc.yaml names them.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from condpdiff.common import errors
from condpdiff.common.errors import UserError
from condpdiff.common.files import digest, read_tensors, write_tensors
from condpdiff.common.settings import PARAMS, read_yaml, value_of

if TYPE_CHECKING:  # two seconds, which stages without networks need not wait for
    from torch import Tensor

UNFINISHED = Path("tmp/unfinished")
FOLDER = "CONDPDIFF_UNFINISHED"  # the variable by which the processes of a stage know their folder of `UNFINISHED`
# `i/n`: this process does the i-th of n parts of a family's members and leaves them there, for another to finish.
PART = "CONDPDIFF_PART"


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main` as `errors.run` does; what it has done is kept until it succeeds."""
    if "RANK" in os.environ:  # one of several processes that share the stage
        return errors.run(main)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: stopped by SIGTERM; `dvc repro` goes on from here"))
    outside = not Path("dvc.yaml").is_file()  # by hand, of no pipeline
    return errors.run(main if outside else lambda: _kept(main))


def _kept(main: Callable[[], None]) -> None:
    module = sys.modules["__main__"].__spec__.name.rpartition(".")[2]  # type: ignore[union-attr]
    name = "@".join([module.replace("_", "-"), *sys.argv[1:]])
    folder = UNFINISHED / name / _key(name)
    for other in set(folder.parent.glob("*")) - {folder}:
        print(f"{name}: passes over what was left of other parameters, code or inputs", flush=True)
        shutil.rmtree(other, ignore_errors=True)  # other jobs of an array do so too
    os.environ[FOLDER] = str(folder)
    try:
        main()
    except SystemExit as end:  # of the processes that shared it
        if end.code:
            raise
    finally:
        del os.environ[FOLDER]
    if PART not in os.environ:
        shutil.rmtree(folder.parent, ignore_errors=True)


def folder_of(what: str) -> Path | None:
    """Where resume points of a part of the running stage lie; None outside of a stage."""
    folder = os.environ.get(FOLDER)
    return Path(folder, what.replace("/", "-").replace(" ", "-")) if folder else None


def once(what: str, compute: Callable[[], dict[str, "Tensor"]]) -> dict[str, "Tensor"]:
    """The tensors that `compute` gives, or gave before the stage was cut off."""
    folder = folder_of(what)
    if folder is None:
        return compute()
    path = folder.with_name(f"{folder.name}.safetensors")  # a task's name may have a dot
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        write_tensors(partial, compute())
        partial.rename(path)
    return read_tensors(path)


def part() -> tuple[int, int]:
    """Which part of a family's groups of members this process does, and of how many; a UserError if there is none."""
    first, _, count = (asked := os.environ.get(PART, "0/1")).partition("/")
    if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise UserError(f"environment: {PART}: found {asked!r}, allowed: i/n with i from 0 to n - 1")
    return int(first), int(count)


def _key(name: str) -> str:
    """Of all that a stage depends on; raises a UserError where an input is not what dvc.lock says of it."""
    stage, _, item = name.partition("@")
    params = read_yaml(PARAMS)
    entry = read_yaml(Path("dvc.yaml"))["stages"][stage]
    spelt = [dep.replace("${item.task}", item).replace("${domain}", params["domain"]) for dep in entry["deps"]]
    deps = [Path(dep) for dep in spelt if Path(dep).exists()]  # those that are not there are told by who reads them
    code = [path for dep in deps for path in ([dep] if dep.is_file() else sorted(dep.rglob("*.py")))]
    digests = {path: digest(path, "md5") for path in code}
    lock = Path("dvc.lock").read_text(encoding="utf-8") if Path("dvc.lock").is_file() else ""
    for by, out in [(by, out) for by, wrote in stages_of(lock).items() for out in wrote.get("outs", ())]:
        path, md5 = Path(out["path"]), out["md5"]
        if any(_overlap(path, dep) for dep in deps) and path.exists():
            digests[path] = md5_of(path)
            if digests[path] != md5:
                says = f"found other bytes than {by} wrote (dvc.lock: md5 {md5})"
                raise UserError(f"{path}: {says}; remove it and run `dvc repro`")
    for dep in deps:
        if dep.parts[0] == "data" and not any(_overlap(path, dep) for path in digests):
            digests[dep] = md5_of(dep)
    asked = {key: value_of(params, key) for key in entry.get("params", ())}
    of_all = [name, {str(path): md5 for path, md5 in digests.items()}, asked]
    return hashlib.sha256(json.dumps(of_all, sort_keys=True).encode()).hexdigest()[:12]


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def stages_of(lock: str) -> dict[str, Any]:
    """The stages of a dvc.lock, by name; {} of an empty one."""
    # Ten times as fast as the plain loader.
    return (yaml.load(lock, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}).get("stages", {})


def md5_of(path: Path) -> str:
    """The md5 of a file, or of a folder, as DVC takes it."""
    if path.is_dir():
        files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
        listed = [{"md5": md5_of(file), "relpath": name} for name, file in files]
        return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
    return digest(path, "md5")
