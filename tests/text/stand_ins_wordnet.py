"""A made-up WordNet: four levels of kinds below one root, each with a gloss of its own."""

from typing import Any

from condpdiff.common.settings import parse
from condpdiff.text.families import wordnet
from condpdiff.text.families.wordnet import Noun, Nouns
from condpdiff.text.task import Task

BRANCHES, TWIGS, LEAVES = 12, 4, 16


def make_nouns() -> Nouns:
    nouns = {"root": Noun("thing", (), "what there is")}
    nouns |= {f"tree {i}": Noun(f"tree {i}", ("root",), f"a tree {i}") for i in range(3)}
    for b in range(BRANCHES):
        nouns[f"{b}"] = Noun(f"branch {b}", (f"tree {b % 3}",), f"the film {b} of branches")
        for t in range(TWIGS):
            nouns[f"{b}.{t}"] = Noun(f"twig {b} {t}", (f"{b}",), f"a good twig {t} of {b}")
            for i in range(LEAVES):
                nouns[f"{b}.{t}.{i}"] = Noun(f"leaf {b} {t} {i}", (f"{b}.{t}",), f"a leaf {i} on twig {t} of {b}")
    return Nouns(nouns)


def fit(monkeypatch: Any) -> Nouns:
    """The made-up nouns in place of the package's, with limits that suit them."""
    nouns = make_nouns()
    for name, value in (("SMALLEST", LEAVES), ("LARGEST", TWIGS * (LEAVES + 1)), ("FAR", 3), ("RELATIVES", 8)):
        monkeypatch.setattr(wordnet, name, value)
    return nouns


def make_family(tier: str = "near", unseen: int = 3, tuning: int = 1, train: int = 8) -> Task:
    content = {
        "data": {"kind": "classification", "labels": ["no", "yes"], "source": {"type": "wordnet", "tier": tier}},
        "members": {"unseen": unseen, "tuning": tuning, "train": train},
        "condition": {"description": "{noun}: {gloss}", "paraphrases": ["a kind of {noun}"], "few_shot": {"draws": 2}},
        "metrics": ["accuracy"],
        "finetune": {"steps": 10, "batch_size": 4, "lr": 0.02, "max_length": 12},
    }
    return parse(Task, content, "family.yaml")
