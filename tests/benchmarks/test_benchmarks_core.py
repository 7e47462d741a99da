"""Benchmarks of the generator's core: made zoos, rows of the ablation, intervals over seeds; no test asserts a time."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablation, core, seeds, streaming
from condpdiff.common.errors import UserError
from condpdiff.common.matrices import RowFile, whole
from condpdiff.zoo.checkpoints import open_zoo

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("row", ablation.read_rows_of(ROOT / ablation.ROWS, []))
def test_every_row_of_the_ablation_is_a_valid_run(row: str) -> None:
    changes = ablation.read_rows_of(ablation.ROWS, [row])[row]
    params = ablation.with_changes(changes, seed=3)
    assert (params.ae.seed, params.ldm.seed, params.sample.seed) == (3, 3, 3)
    for key, value in changes.items():
        section, name = key.split(".")
        found = getattr(getattr(params, section), name)
        assert (list(found) if isinstance(found, tuple) else found) == value


def test_unknown_row_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no row 'min-SNR 4' \(did you mean 'min-SNR 5'\?\)"):
        ablation.read_rows_of(ablation.ROWS, ["min-SNR 4"])


def test_made_zoo_has_coordinates_of_variance_1_and_low_rank(tmp_path: Path) -> None:
    core.make_zoo(tmp_path / "w.safetensors", 200)
    w = whole(RowFile(tmp_path / "w.safetensors", "w"))
    assert w.shape == (core.N, 200)
    assert 0.7 < float(w.var()) < 1.3
    values = np.linalg.svd(w.numpy(), compute_uv=False) ** 2
    assert values[: core.RANK].sum() / values.sum() > 0.99


def test_p_diffs_batch_shrinks_until_it_fits() -> None:
    rows = [core.settings_of("pdiff", K).batch_size for K in core.SIZES]
    assert rows[0] == 50
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] == 1


def test_streamed_zoos_are_what_normalize_reads(tmp_path: Path) -> None:
    case = streaming.Case(tasks=2, rows=20, layers=1, rank=1, hidden=4)
    streaming.make(case, tmp_path)
    rows, layout = open_zoo(tmp_path / "data/zoo/t1", 20)
    assert rows.shape == (20, case.layout.K)
    assert layout == case.layout
    assert streaming.CASES["wide"].layout.K == 1_179_648


def test_interval_covers_seeds_as_well_as_rows() -> None:
    drawn = np.random.default_rng(0).integers(3, size=(500, 3))
    theirs = np.zeros(501)
    same = np.full((3, 501), 2.0)
    assert seeds.interval(same, theirs, drawn) == "+2.00 [+2.00, +2.00]"
    apart = same + np.array([[-1.0], [0.0], [1.0]])
    point, low, high = (float(x.strip("[],").replace("−", "-")) for x in seeds.interval(apart, theirs, drawn).split())
    assert point == 2.0
    assert low == pytest.approx(1.0, abs=0.4)
    assert high == pytest.approx(3.0, abs=0.4)
