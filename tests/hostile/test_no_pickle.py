"""Nothing that is read can run code, or write where it should not."""

import ast
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from condpdiff.adapters.formats import FILES, PICKLES, read_adapter
from condpdiff.common.task import Base
from condpdiff.style.metrics import read_state
from condpdiff.text.base import prepare_base
from tests.clone import ROOT
from tests.messages import message_of

CODE = [*sorted(ROOT.glob("condpdiff/**/*.py")), *sorted(ROOT.glob("stages/*.py"))]
UNSAFE = {"pickle", "joblib", "shelve", "marshal", "eval", "exec", "extractall", "read_pickle", "unpack_archive"}


class Runs:
    """Its pickle makes the file `owned`."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("owned"),)


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_call_runs_what_is_read(path: Path) -> None:
    for call in (node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call)):
        name, said = ast.unparse(call.func), {each.arg: ast.unparse(each.value) for each in call.keywords}
        inside = set(name.split(".")) - ({"eval"} if name.endswith(".eval") and not call.args else set())  # a network's
        assert not inside & UNSAFE, f"line {call.lineno}"
        assert name != "torch.load" or said.get("weights_only") == "True", f"line {call.lineno}"
        safe = "SafeLoader" in ast.unparse(call) or said.get("Loader") == "_LOADER"
        assert name not in ("yaml.load", "yaml.load_all") or safe, f"line {call.lineno}"
        assert {said.get("trust_remote_code"), said.get("shell")} <= {None, "False"}, f"line {call.lineno}"


def test_pickles_are_refused_in_one_line(base: Callable[[str], Path], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base("bert"), "model")
    Path("model/model.safetensors").unlink()
    Path("mine").mkdir()
    for name in (
        "model/pytorch_model.bin",
        *(f"mine/{name}" for name in FILES if Path(name).suffix in PICKLES),
        "mine.pt",
    ):
        Path(name).write_bytes(pickle.dumps(Runs()))
    assert "model.safetensors" in message_of(prepare_base, Base(source="local", name="model"), Path("out"))
    for path in (Path("mine"), Path("mine.pt")):
        assert "a pickle, which may run code" in message_of(read_adapter, path)
    assert "not a file of weights" in message_of(read_state, pickle.dumps(Runs()), "lite0.pth")
    assert not Path("owned").exists() and not Path("out").exists()
