"""Families out of WordNet: the same members each time, and nothing of a far one anywhere near."""

from typing import Any

import pytest

from condpdiff.common.errors import UserError
from condpdiff.common.task import Members
from condpdiff.text.families import wordnet
from condpdiff.text.families.wordnet import Nouns, Topic, read_nouns, topics
from tests.text.stand_ins_wordnet import BRANCHES, LEAVES, TWIGS, fit

NEAR, FAR = Members(unseen=3, tuning=1, train=8), Members(unseen=2, tuning=1, train=0)


@pytest.fixture
def nouns(monkeypatch: pytest.MonkeyPatch) -> Nouns:
    return fit(monkeypatch)


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
    few, more = (
        topics(nouns, "near", NEAR, 0, "f"),
        topics(nouns, "near", NEAR.model_copy(update={"train": 12}), 0, "f"),
    )
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
