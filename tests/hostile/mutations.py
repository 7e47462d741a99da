"""Good content made bad, and what must hold of whoever reads it."""

import copy
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from condpdiff.common.errors import UserError

OUTSIDE = "/tmp/condpdiff-hostile"
ODD: list[Any] = [  # values that stand in the place of good ones
    *(None, True, "", "..", "../outside/new", OUTSIDE, "a/../../b", "a\0b", "a\nb", "e\u0301", "\ud800", "\u2028"),
    *("x" * 5000, "x/" * 2500, "none", -1, 0, 1, 2, 1.5, 2**31, 2**63, 10**30, float("nan"), float("inf"), 1e-320),
    *([], {}, [[]], ["a", "a"], [1, "a"], {"type": "files"}, {"": ""}, {"a\nb": 1}, [0] * 99, {"x" * 5000: None}),
]
_LEVELS = [f"&{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
SNIPPETS = [  # bytes that stand somewhere in a file
    *(b"!!python/object/apply:os.mkdir [../outside/new]", b"!!python/name:os.system", b"&a [*a]", b"{&b x: *b}"),
    *(b"!!int x", b"!!float x", b"!!bool x", b"!!timestamp x", b"!!binary x", b"!!set {a, [b]}", b"2026-13-45"),
    *(b"0x" + b"f" * 5000, b"9" * 5000, b"<<: 1", b"{<<: [1]}", b"? [a]", b"- : -", b"[" * 500, b"a" * 70000),
    *(f"[&a [x, x], {', '.join(_LEVELS)}]".encode(), b"NaN", b".nan", b"-.inf", b"1e999", b"{}", b"null"),
    *(b"\t", b"\0", b"\r", b"\n", b'"', b"'", b"\\", b",", b"\x7f" + b"\xff" * 7, b"\xff" * 8, b"\xff\xfe"),
    *(b"\xef\xbb\xbf", b"\xc3\x28", b"\xed\xa0\x80", b"\xe2\x80\xa8"),
]
Changes = list[tuple[int, int, int]]
CHANGES = st.lists(st.tuples(*[st.integers(0, 9999)] * 3), min_size=1, max_size=3)  # what to do, where, with what


def cases(count: int) -> settings:
    """The same cases each time, and none remembered."""
    same = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": [*HealthCheck]}
    return settings(max_examples=count, **same)


def changed(value: Any, changes: Changes) -> Any:
    """A value of JSON with parts that are dropped, swapped, renamed, or odd."""
    value = {"all": copy.deepcopy(value)}
    for kind, where, what in changes:
        places = list(_places(value))
        holder, key = places[where % len(places)]
        if kind % 8 == 0 and holder is not value:
            del holder[key]
        elif kind % 8 == 1:
            other, at = places[what % len(places)]
            holder[key], other[at] = copy.deepcopy(other[at]), copy.deepcopy(holder[key])
        elif kind % 8 == 2 and isinstance(holder, dict):
            holder[str(ODD[what % len(ODD)])] = holder[key]
        else:
            alike = [odd for odd in ODD if type(odd) is type(holder[key])] if kind % 2 else []
            holder[key] = copy.deepcopy((alike or ODD)[what % len(alike or ODD)])
    return value["all"]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inside in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inside, dict | list):
            yield from _places(inside)


def damaged(content: bytes, changes: Changes) -> bytes:
    """Bytes that are cut, flipped, overwritten, doubled, or among which others stand."""
    for kind, where, what in changes:
        at, size, snippet = where * len(content) // 10000, what % 300, SNIPPETS[what % len(SNIPPETS)]
        before, after = content[:at], content[at:]
        content = (
            before,
            before + after[size:],
            before + snippet + after,
            before + snippet + after[len(snippet) :],
            before + bytes(byte ^ (1 << what % 8) for byte in after[:1]) + after[1:],
            before + after[:size] + after,
            snippet + content[len(snippet) :],  # where headers are
            before[: before.rfind(b":") + 1] + b" " + snippet + b"\n" + after.partition(b"\n")[2],  # a value of YAML
        )[kind % 8]
    return content


def damaged_json(content: bytes, changes: Changes) -> bytes:
    whole = sum(changes[0]) % 4 == 0
    return damaged(content, changes) if whole else json.dumps(changed(json.loads(content), changes)).encode()


def damaged_tensors(content: bytes, changes: Changes) -> bytes:
    """The same of safetensors: the file, its tensors, its header, or the configuration in that."""
    (kind, where, what), length = changes[0], int.from_bytes(content[:8], "little")
    if kind % 4 == 0:
        return damaged(content, changes)
    if kind % 4 == 1:
        tensors = load(content)
        one = tensors.pop(key := list(tensors)[where % len(tensors)]).float()
        forms = (one.flatten()[:0], one.flatten(), one[None], one.sum(), one.half(), one.int(), one * float("nan"))
        odd = str(ODD[what % len(ODD)])[:200].replace("\ud800", "?")
        return save(tensors | {(key, odd)[what % 3 == 0]: (*forms, one.bool(), one * 1e38)[kind // 4 % 9]})
    header = json.loads(content[8 : 8 + length])
    if kind % 4 == 2 and "config" in (metadata := header.get("__metadata__", {})):
        metadata["config"] = damaged_json(metadata["config"].encode(), changes).decode(errors="replace")
    head = json.dumps(changed(header, changes) if kind % 4 == 3 else header).encode()
    return len(head).to_bytes(8, "little") + head + content[8 + length :]


HARMS = {".json": damaged_json, ".safetensors": damaged_tensors}


@contextmanager
def is_read_or_refused(folder: Path, but: str = "out") -> Iterator[None]:
    """The block ends in time, well or with one line; nothing is written in the folder but below `but`."""

    def tree() -> list[tuple[str, int]]:
        found = [path for path in folder.rglob("*") if not path.relative_to(folder).is_relative_to(but)]
        return sorted((str(path), path.lstat().st_mtime_ns) for path in found if not path.is_dir())

    before = tree()
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
    signal.alarm(60)
    try:
        yield
    except UserError as error:
        assert "\n" not in str(error), str(error)
    finally:
        signal.alarm(0)
    assert tree() == before and not Path(OUTSIDE).exists()
