"""Hostile zoos, adapters and generators: read, or refused in one line."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from condpdiff.adapters.formats import Adapter, read_adapter, write_diffusers, write_kohya
from condpdiff.adapters.importing import checkpoints
from condpdiff.common.files import write_tensors
from condpdiff.packed.apply import apply, rows_of
from condpdiff.packed.generator import Generator
from condpdiff.packed.trying import distances, nearest_checkpoint
from condpdiff.zoo.adapters import write_adapter
from condpdiff.zoo.checkpoints import HEAD, THETA, load_zoo
from condpdiff.zoo.layout import unflatten
from condpdiff.zoo.placed import PREFIX
from tests.hostile.mutations import CHANGES, Changes, cases, damaged, damaged_json, damaged_tensors, is_read_or_refused
from tests.packed.tiny_generators import text_generator
from tests.stand_ins import make_zoo

DAMAGES = {".json": damaged_json, ".safetensors": damaged_tensors}
INDEX = st.integers(0, 99)


@pytest.fixture(scope="module")
def good(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a zoo, a generator, and adapters of three formats."""
    folder = tmp_path_factory.mktemp("good")
    zoo, _ = make_zoo(base("bert"))
    for name in ("zoo", "peft", "diffusers", "kohya"):
        (folder / name).mkdir()
    write_tensors(folder / "zoo" / THETA, {"theta": zoo.theta}, zoo.config)
    write_tensors(folder / "zoo" / HEAD, zoo.head)
    zoo.layout.save(folder / "zoo")
    tensors = {**unflatten(zoo.theta[0], zoo.layout), **zoo.head}
    write_adapter(folder / "peft", tensors, zoo.config, str(base("bert")), "", ["bad", "good"])
    of_style = {f"{PREFIX}transformer_blocks.0.attn1.to_q.lora_{m}.weight": torch.ones(2, 2) for m in "AB"}
    adapter = Adapter(of_style, 2, 4.0, config={"target_modules": ["to_q"]})
    write_diffusers(adapter, folder / "diffusers")
    write_kohya(adapter, folder / "kohya")
    (folder / "list.jsonl").write_text(json.dumps({"id": "a", "description": "b", "path": "peft"}) + "\n")
    text_generator(folder / "generator", base("bert"))
    return folder


def imported(source: Path) -> None:
    [each.read() for each in checkpoints(source, 1.0)]


@contextmanager
def harmed(good: Path, name: str, index: int, changes: Changes) -> Iterator[None]:
    """One file of a folder is damaged during the block, which reads it, or refuses it."""
    files = [good / name] if (good / name).is_file() else sorted(p for p in (good / name).rglob("*") if p.is_file())
    path = files[index % len(files)]
    content = path.read_bytes()
    path.write_bytes(DAMAGES.get(path.suffix, damaged)(content, changes))
    try:
        with is_read_or_refused(good):
            yield
    finally:
        path.write_bytes(content)
        shutil.rmtree(good / "out", ignore_errors=True)


@cases(300)
@given(st.sampled_from([load_zoo, lambda folder: load_zoo(folder, 2), imported]), INDEX, CHANGES)
def test_a_zoo_is_read_or_refused(good: Path, read: Any, index: int, changes: Changes) -> None:
    with harmed(good, "zoo", index, changes):
        read(good / "zoo")


@cases(300)
@given(INDEX, CHANGES)
def test_a_generator_makes_loras_or_is_refused(good: Path, index: int, changes: Changes) -> None:
    with harmed(good, "generator", index, changes):
        made_by = Generator.from_pretrained(good / "generator")
        name = made_by.nearest(made_by.condition("films"), made_by.trained)
        lora = made_by.generate(name)[0]
        distances(made_by, lora), nearest_checkpoint(made_by, lora)
        lora.save_pretrained(good / "out")


@cases(360)
@given(st.sampled_from(["peft", "diffusers", "kohya", "list.jsonl"]), INDEX, CHANGES)
def test_an_adapter_is_read_or_refused(good: Path, name: str, index: int, changes: Changes) -> None:
    with harmed(good, name, index, changes):
        read_adapter(good / name) if name != "list.jsonl" else imported(good / name)


@cases(40)
@given(INDEX, CHANGES)
def test_an_adapter_is_applied_or_refused(good: Path, base: Any, index: int, changes: Changes) -> None:
    with harmed(good, "peft", index, changes):
        apply(good / "peft", rows_of(["good film"]), base("bert"))
