"""A stage that is cut off: what it has done stays until it succeeds, and its inputs are those that were written."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from condpdiff.common.files import new_directory
from condpdiff.common.stage import PART, UNFINISHED, folder_of, md5_of, once, part, run
from tests.messages import message_of

NAME = "train-ae@cola"
INPUT = Path("data/normalized/cola/w.bin")


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stage of one task, its input and the lock that tells of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="stages.train_ae"))
    monkeypatch.setattr(sys, "argv", ["train_ae", "cola"])
    for path, text in ((INPUT, "w"), (Path("lib/a.py"), "a = 1"), (Path("lib/note.md"), "a note")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    Path("params.yaml").write_text("domain: text\nae: {noise: 0.1}\nldm: {steps: 3}\n")
    deps = ["data/normalized/${item.task}", "lib", "lib/${domain}"]
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"train-ae": {"deps": deps, "params": ["ae.noise"]}}}))
    out = {"path": "data/normalized/cola", "md5": md5_of(INPUT.parent)}
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"normalize": {"outs": [out]}}}))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def cut_off() -> None:
    once("half", lambda: {"x": torch.ones(2)})
    raise KeyboardInterrupt


def kept() -> list[str]:
    return [path.name for path in UNFINISHED.glob(f"{NAME}/*/*")]


def ends(main: Callable[[], None]) -> str:
    with pytest.raises(SystemExit) as end:
        run(main)
    return str(end.value)


def test_what_was_done_stays_until_the_stage_succeeds() -> None:
    assert ends(cut_off) == "error: stopped by Ctrl-C"
    assert kept() == ["half.safetensors"]
    found = []
    run(lambda: found.append(once("half", lambda: pytest.fail("computed again"))["x"].tolist()))
    assert found == [[1.0, 1.0]] and not (UNFINISHED / NAME).exists()
    run(lambda: found.extend(once(f"v.{i} 1", lambda i=i: {"x": torch.tensor(i)})["x"].item() for i in (2, 3)))
    assert found[1:] == [2, 3]  # a name may have a dot
    assert folder_of("training") is None  # outside of a stage nothing is kept
    assert once("x", lambda: {"x": torch.ones(1)})["x"] == 1 and not (UNFINISHED / NAME).exists()


def test_stage_that_is_stopped_cleans_up_and_says_so() -> None:
    def main() -> None:
        with new_directory(Path("data/out")):
            os.kill(os.getpid(), signal.SIGTERM)

    assert ends(main) == "error: stopped by SIGTERM; `dvc repro` goes on from here"
    assert sorted(path.name for path in Path("data").iterdir()) == ["normalized"]


@pytest.mark.parametrize(
    ("path", "text", "stale"),
    [
        ("params.yaml", "domain: text\nae: {noise: 0.2}\nldm: {steps: 3}\n", True),
        ("params.yaml", "domain: text\nae: {noise: 0.1}\nldm: {steps: 4}\n", False),
        ("lib/a.py", "a = 2", True),
        ("lib/note.md", "another note", False),
    ],
    ids=["its parameter", "another's parameter", "code", "no code"],
)
def test_what_another_run_left_is_passed_over(
    path: str, text: str, stale: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    ends(cut_off)
    Path(path).write_text(text)
    computed: list[int] = []
    run(lambda: bool(once("half", lambda: computed.append(1) or {"x": torch.zeros(1)})))
    assert bool(computed) == stale
    assert (f"{NAME}: passes over what was left" in capsys.readouterr().out) == stale


def test_input_with_a_flipped_bit_is_named_and_not_worked_on() -> None:
    INPUT.write_text("v")
    said = ends(lambda: pytest.fail("it ran"))
    assert said.startswith("error: data/normalized/cola: found other bytes than normalize wrote (dvc.lock: md5 ")
    assert said.endswith("remove it and run `dvc repro`")


def test_part_of_a_family_leaves_its_results_for_the_run_that_finishes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert part() == (0, 1)
    monkeypatch.setenv(PART, "1/3")
    assert part() == (1, 3)
    run(lambda: bool(once("group", lambda: {"x": torch.ones(1)})))
    assert kept() == ["group.safetensors"]
    for asked in ("3/3", "1", "a/b", "-1/2"):
        monkeypatch.setenv(PART, asked)
        assert message_of(part) == f"environment: {PART}: found '{asked}', allowed: i/n with i from 0 to n - 1"
