"""Stages measured, made zoos; no test asserts a time."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import core, stages, streaming
from condpdiff.common.errors import UserError
from condpdiff.common.matrices import RowFile, whole
from condpdiff.zoo.checkpoints import open_zoo


def test_every_stage_is_found_producers_first() -> None:
    found = stages.stages(stages.ROOT)
    order = [name.partition("@")[0] for name in found]
    assert found["finetune-collect@movies"] == "python -m stages.finetune_collect movies"
    assert order[0] == "check-params" and order[-1] == "report"
    assert order.index("train-ae") < order.index("encode-latents") < order.index("train-ldm") < order.index("sample")


def test_a_process_is_measured_or_its_output_is_told(tmp_path: Path) -> None:
    _, peak = stages.measure("""python -c 'import time; x = bytearray(10**8); time.sleep(0.5)'""", tmp_path)
    assert peak > 10**8
    with pytest.raises(UserError, match="ended with 1: what went wrong"):
        stages.measure("""python -c 'raise SystemExit("what went wrong")'""", tmp_path)


def test_made_zoo_has_coordinates_of_variance_1_and_low_rank(tmp_path: Path) -> None:
    core.make_zoo(tmp_path / "w.safetensors", 200)
    w = whole(RowFile(tmp_path / "w.safetensors", "w"))
    assert w.shape == (core.N, 200)
    assert 0.7 < float(w.var()) < 1.3
    values = np.linalg.svd(w.numpy(), compute_uv=False) ** 2
    assert values[: core.RANK].sum() / values.sum() > 0.99
    found = core.measure("conv1d", tmp_path / "w.safetensors", 2)
    assert found["rows"] == 64 and found["peak"] > 0 and all(error >= 0 for error in found["errors"])
    case = streaming.Case(tasks=2, rows=20, layers=1, rank=1, hidden=4)
    streaming.make(case, tmp_path)
    rows, layout = open_zoo(tmp_path / "data/zoo/t1", 20)  # as normalize reads it
    assert rows.shape == (20, case.layout.K) and layout == case.layout
    assert streaming.CASES["wide"].layout.K == 1_179_648
