"""Families out of WordNet: the same members each time, nothing of a far one anywhere near; rows, half of them yes."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_json, read_rows
from condpdiff.common.settings import parse
from condpdiff.common.task import Data, Members
from condpdiff.experiments.presets import load_preset
from condpdiff.text.conditions import inputs
from condpdiff.text.data import prepare_data
from condpdiff.text.families import wordnet
from condpdiff.text.families.wordnet import Noun, Nouns, Topic, read_nouns, topics
from condpdiff.text.task import Task, check
from tests.messages import message_of

NEAR, FAR = Members(unseen=3, tuning=1, train=8), Members(unseen=2, tuning=1, train=0)
SIZES = {"train": 6, "held_out": 4, "validation": 8}
LIMITS = Data(max_train=10, held_out=4, max_validation=8)
BRANCHES, TWIGS, LEAVES = 12, 4, 16


def make_family() -> Task:
    content = {
        "data": {"kind": "classification", "labels": ["no", "yes"], "source": {"type": "wordnet", "tier": "near"}},
        "members": NEAR.model_dump(),
        "condition": {"description": "{noun}: {gloss}", "paraphrases": ["a kind of {noun}"], "few_shot": {"draws": 2}},
        "metrics": ["accuracy"],
        "finetune": {"steps": 10, "batch_size": 4, "lr": 0.02, "max_length": 12},
    }
    return parse(Task, content, "family.yaml")


@pytest.fixture
def nouns(monkeypatch: pytest.MonkeyPatch) -> Nouns:
    """A made-up WordNet of four levels of kinds below one root, each with a gloss of its own, with limits that suit."""
    nouns = {"root": Noun("thing", (), "what there is")}
    nouns |= {f"tree {i}": Noun(f"tree {i}", ("root",), f"a tree {i}") for i in range(3)}
    for b in range(BRANCHES):
        nouns[f"{b}"] = Noun(f"branch {b}", (f"tree {b % 3}",), f"the film {b} of branches")
        for t in range(TWIGS):
            nouns[f"{b}.{t}"] = Noun(f"twig {b} {t}", (f"{b}",), f"a good twig {t} of {b}")
            for i in range(LEAVES):
                nouns[f"{b}.{t}.{i}"] = Noun(f"leaf {b} {t} {i}", (f"{b}.{t}",), f"a leaf {i} on twig {t} of {b}")
    for name, value in (("SMALLEST", LEAVES), ("LARGEST", TWIGS * (LEAVES + 1)), ("FAR", 3), ("RELATIVES", 8)):
        monkeypatch.setattr(wordnet, name, value)
    return Nouns(nouns)


@pytest.fixture
def folder(nouns: Nouns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(wordnet, "read_nouns", lambda where: nouns)
    prepare_data("leaves", make_family(), LIMITS, tmp_path / "leaves")
    return tmp_path / "leaves"


def texts(found: list[Topic]) -> set[str]:
    return {text for topic in found for part in (topic.yes, topic.siblings, topic.others) for text in part}


def test_reads_the_package_s_two_files_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "data.noun1": "  1 licence\n00000001 03 n 02 entity 0 being 0 001 ~ 00000002 n 0000 | what is  \n",
        "data.noun2": "00000002 05 n 01 big_dog 0 002 @ 00000001 n 0000 + 00000009 v 0101 | a dog; that is big; "
        '"the big dog barks"  \n00000003 05 n 01 Rex 1 001 @i 00000002 n 0000 | one of them',
    }
    monkeypatch.setattr(wordnet, "package_file", lambda package, member, where: files[member[-10:]].encode())
    found = read_nouns("here")
    assert [noun.name for noun in found.nouns.values()] == ["entity", "big dog", "Rex"]
    assert found.nouns["00000002"].gloss == "a dog; that is big" and found.nouns["00000002"].parents == ("00000001",)
    assert found.below(["00000001"]) == {"00000002", "00000003"} and not found.below(["00000003"])


def test_members_stay_as_they_are_when_more_are_trained_on(nouns: Nouns) -> None:
    few = topics(nouns, "near", NEAR, 0, "f")
    more = topics(nouns, "near", NEAR.model_copy(update={"train": 12}), 0, "f")
    assert [t.noun for t in more[:12]] == [t.noun for t in few] and len({t.noun.name for t in more}) == 16
    assert [t.noun for t in topics(nouns, "near", NEAR, 1, "f")] != [t.noun for t in few]


def test_near_member_has_an_ancestor_or_descendant_that_is_trained_on(nouns: Nouns) -> None:
    near = topics(nouns, "near", NEAR, 0, "f")
    trained = [topic.noun.name for topic in near[4:]]
    for topic in near[:4]:
        kind, *place = topic.noun.name.split()
        relatives = [f"branch {place[0]}"] if kind == "twig" else [f"twig {place[0]} {t}" for t in range(TWIGS)]
        assert set(relatives) & set(trained)


def test_far_member_shares_no_noun_and_no_text_with_any_near_one(nouns: Nouns) -> None:
    near, far = topics(nouns, "near", NEAR, 0, "f"), topics(nouns, "far", FAR, 0, "f")
    branches = [
        {topic.noun.name.split()[1] for topic in tier if topic.noun.name.startswith("branch")} for tier in (near, far)
    ]
    assert not texts(near) & texts(far) and not branches[0] & branches[1]
    for topic in far:
        assert not {topic.noun.gloss} & texts(near)
        of_it = {n.gloss for n in nouns.nouns.values() if n.name.split()[1:3] == topic.noun.name.split()[1:3]}
        assert not of_it & texts(near)


@pytest.mark.parametrize("tier", ["near", "far"])
def test_no_rows_are_of_no_kind_of_it_and_siblings_have_its_parent(nouns: Nouns, tier: Any) -> None:
    for topic in topics(nouns, tier, {"near": NEAR, "far": FAR}[tier], 0, "f"):
        assert not set(topic.yes) & {*topic.siblings, *topic.others, topic.noun.gloss}
        assert not set(topic.siblings) & set(topic.others) and sorted(topic.yes) == topic.yes
        if tier == "near" and topic.noun.name.startswith("twig"):
            assert all(text.endswith(f"of {topic.noun.name.split()[1]}") for text in topic.siblings)
            assert len(topic.yes) <= LEAVES


def test_more_members_than_there_are_is_one_line(nouns: Nouns) -> None:
    roots = BRANCHES * (1 + TWIGS)
    with pytest.raises(UserError, match=rf"^f: found {roots + 4} members in all, allowed: at most \d+ \(near\)$"):
        topics(nouns, "near", NEAR.model_copy(update={"train": roots}), 0, "f")
    with pytest.raises(UserError, match=r"^f: found 40 unseen and 1 tuning members, allowed: at most \d+ in all$"):
        topics(nouns, "near", Members(unseen=40, tuning=1, train=8), 0, "f")


def test_half_of_each_split_is_yes_in_turn_no_text_stands_twice_and_another_seed_has_others(folder: Path) -> None:
    frames = {split: read_rows(folder, split) for split in SIZES}
    assert {k: len(frame) for k, frame in frames.items()} == {k: 12 * size for k, size in SIZES.items()}
    for q in range(12):
        mine = {split: frame[frame["member"] == q] for split, frame in frames.items()}
        assert not pd.concat(mine.values())["text"].duplicated().any()
        assert all(frame["label"].tolist() == [1, 0] * (SIZES[split] // 2) for split, frame in mine.items())
    for seed, same in ((0, True), (1, False)):
        out = folder.parent / f"again{seed}"
        prepare_data("leaves", make_family(), LIMITS.model_copy(update={"seed": seed}), out)
        assert read_rows(out, "train").equals(frames["train"]) == same


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


def test_family_s_file_that_does_not_fit_is_one_line() -> None:
    family = make_family().model_dump()
    far = family["data"] | {"source": family["data"]["source"] | {"tier": "far"}}
    wrong: dict[str, dict[str, Any]] = {
        "members: found None, allowed: as a family has them": {"members": None},
        "members.train: found 8, allowed: 0 (data.source.tier: far)": {"data": far},
        "finetune.head_lr: found 0.1, allowed: 0": {"finetune": family["finetune"] | {"head_lr": 0.1}},
    }
    for line, changes in wrong.items():
        assert line in message_of(parse, Task, family | changes, "family.yaml")


def test_run_of_families_has_a_condition_that_says_something() -> None:
    preset = load_preset("many")
    check(preset.params, preset.tasks)
    (name, task), *_ = preset.tasks.items()
    source = task.data.source.model_copy(update={"seed": 7})
    other = task.model_copy(update={"data": task.data.model_copy(update={"source": source})})
    with pytest.raises(ValueError, match=r"^data.source.seed: \[0, 7\], allowed: one seed"):
        check(preset.params, {**preset.tasks, name: other})
    numbered = preset.params.condition.model_copy(update={"kind": "one_hot"})
    with pytest.raises(ValueError, match=r"^condition.kind: one_hot, allowed: task_info_few_shot, .*\(for families\)$"):
        check(preset.params.model_copy(update={"condition": numbered}), preset.tasks)
