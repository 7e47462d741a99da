"""A family's rows: half of them yes, no text of a member twice, and texts that tell of it."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_json, read_rows
from condpdiff.common.settings import parse
from condpdiff.common.task import Data
from condpdiff.experiments.presets import load_preset
from condpdiff.text.conditions import inputs
from condpdiff.text.data import prepare_data
from condpdiff.text.families import wordnet
from condpdiff.text.task import Task, check
from tests.messages import message_of
from tests.text.stand_ins_wordnet import fit, make_family

SIZES = {"train": 6, "held_out": 4, "validation": 8}
LIMITS = Data(max_train=10, held_out=4, max_validation=8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nouns = fit(monkeypatch)
    monkeypatch.setattr(wordnet, "read_nouns", lambda where: nouns)
    prepare_data("leaves", make_family(), LIMITS, tmp_path / "leaves")
    return tmp_path / "leaves"


def test_half_of_each_split_is_yes_in_turn_and_no_text_stands_twice(folder: Path) -> None:
    frames = {split: read_rows(folder, split) for split in SIZES}
    assert {k: len(frame) for k, frame in frames.items()} == {k: 12 * size for k, size in SIZES.items()}
    for q in range(12):
        mine = {split: frame[frame["member"] == q] for split, frame in frames.items()}
        assert not pd.concat(mine.values())["text"].duplicated().any()
        assert all(frame["label"].tolist() == [1, 0] * (SIZES[split] // 2) for split, frame in mine.items())


def test_rows_are_the_same_again_and_others_under_another_seed(folder: Path) -> None:
    for seed, same in ((0, True), (1, False)):
        out = folder.parent / f"again{seed}"
        prepare_data("leaves", make_family(), LIMITS.model_copy(update={"seed": seed}), out)
        assert read_rows(out, "train").equals(read_rows(folder, "train")) == same


def test_member_is_told_of_by_its_noun_its_gloss_and_its_own_held_out_rows(folder: Path) -> None:
    told = read_json(folder / "description.json")["members"][3]
    first = f"{told['noun']}: {told['gloss']}"
    assert inputs(folder / "3", "task_info") == [first, f"a kind of {told['noun']}"]
    held_out = read_rows(folder, "held_out")
    mine = set(held_out.loc[held_out["member"] == 3, "text"])
    shots = inputs(folder / "3", "few_shot")
    assert len(shots) == 2 and len(inputs(folder / "3", "task_info_few_shot")) == 4
    for line in (line for shot in shots for line in shot.split("\n")):
        text, _, label = line.removeprefix("Input: ").partition(" Output: ")
        assert text in mine and label in ("yes", "no")


def test_more_rows_than_a_member_has_texts_is_one_line(folder: Path) -> None:
    limits = LIMITS.model_copy(update={"max_train": 400})
    found = message_of(prepare_data, "leaves", make_family(), limits, folder.parent / "more")
    assert found.startswith("configs/families/leaves.yaml: '") and found.endswith("ask for 408 rows)")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"members": None}, "members: found None, allowed: as a family has them"),
        ({"data": {"tier": "far"}}, "members.train: found 8, allowed: 0 (data.source.tier: far)"),
        ({"finetune": {"head_lr": 0.1}}, "finetune.head_lr: found 0.1, allowed: 0"),
    ],
)
def test_family_s_file_that_does_not_fit_is_one_line(changes: dict[str, Any], line: str) -> None:
    content = make_family().model_dump()
    content["data"]["source"] |= changes.get("data", {})
    content["finetune"] |= changes.get("finetune", {})
    content["members"] = changes.get("members", content["members"])
    with pytest.raises(UserError) as error:
        parse(Task, content, "family.yaml")
    assert line in str(error.value)


def test_run_of_families_has_a_condition_that_says_something() -> None:
    preset = load_preset("many")
    check(preset.params, preset.tasks)
    numbered = preset.params.condition.model_copy(update={"kind": "one_hot"})
    with pytest.raises(
        ValueError, match=r"^condition.kind: one_hot, allowed: task_info_few_shot, .* \(for families\)$"
    ):
        check(preset.params.model_copy(update={"condition": numbered}), preset.tasks)
