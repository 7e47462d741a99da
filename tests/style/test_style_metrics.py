"""Fréchet distances: the published feature network, clean-fid's formula, and one line where there is no distance."""

import warnings
from io import BytesIO
from pathlib import Path

import cleanfid.fid
import numpy as np
import pytest
import torch

from condpdiff.common.errors import UserError
from condpdiff.common.files import read_tensors, write_tensors
from condpdiff.style.metrics import (
    BATCH,
    FEATURES,
    INCEPTION,
    LITE0,
    Inception,
    Judge,
    Statistics,
    features,
    frechet_distance,
    lite0_of,
    lite0_state,
    load_features,
    read_state,
    statistics,
)
from tests.style.stand_ins_style import make_images, random_lite0, save_random_features


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_random_features(folder)
    return folder


def published(state: dict[str, torch.Tensor]) -> bytes:
    """Weights as the package's file has them: under other names, and the head behind."""
    renamed = {f"_layer.{i}": value for i, value in enumerate(state.values())}
    return pickled({**renamed, "_conv_head.weight": torch.zeros(2, 2)})


def pickled(value: object) -> bytes:
    buffer = BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def gaussian(count: int, width: int, shift: float = 0.0, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (shift + scale * np.random.default_rng(seed).standard_normal((count, width))).astype(np.float32)


# --- features -----------------------------------------------------------------------------------


def test_features_are_the_last_blocks_channels_whatever_the_batch(base: Path) -> None:
    network, images, seen = load_features(base, "fd_lite0"), make_images(BATCH + 2, 0), []
    found = features(network, images)
    assert found.shape == (BATCH + 2, 320) and found.dtype == np.float32
    np.testing.assert_allclose(found[-2:], features(network, images[-2:]), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found, features(network, images))
    network.stem.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    features(network, np.stack([np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8)]))
    assert seen[0].shape == (2, 3, 32, 32)  # it sees minus one to one at its own size
    torch.testing.assert_close(seen[0], torch.ones_like(seen[0]) * torch.tensor([-1.0, 1.0])[:, None, None, None])


def test_published_weights_load_by_order_under_timms_names() -> None:
    state = lite0_state(published(random_lite0()), "package")
    assert state.keys() == random_lite0().keys()
    assert all(torch.equal(state[key], value) for key, value in random_lite0().items())


def test_weights_of_something_else_are_refused(base: Path, tmp_path: Path) -> None:
    other = {key: value for key, value in random_lite0().items() if "blocks.6" not in key}
    with pytest.raises(UserError, match=r"^file: found other weights, allowed: those of EfficientNet-Lite0$"):
        lite0_state(published(other), "file")
    with pytest.raises(UserError, match="found other weights"):
        lite0_of(other, "file")
    (tmp_path / FEATURES).mkdir()
    write_tensors(tmp_path / FEATURES / LITE0, {"a": torch.zeros(2)})
    with pytest.raises(UserError, match="found other weights"):
        load_features(tmp_path, "fd_lite0")


@pytest.mark.parametrize(
    "content",
    [b"", b"no weights", published(random_lite0())[:1000], pickled({"a": Path("x")})],
    ids=["empty", "text", "cut", "would run code"],
)
def test_file_that_holds_no_weights_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(UserError) as error:
        read_state(content, "file")
    assert str(error.value).startswith("file: not a file of weights (")
    assert "\n" not in str(error.value)


def test_base_without_the_networks_or_with_a_broken_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{LITE0}: no such file"):
        load_features(tmp_path, "fd_lite0")
    with pytest.raises(UserError, match=f"{INCEPTION}: no such file; the metric fid needs params.yaml: base.inception"):
        load_features(tmp_path, "fid")
    (tmp_path / FEATURES).mkdir()
    (tmp_path / FEATURES / INCEPTION).write_bytes(b"no network")
    with pytest.raises(UserError, match=f"{INCEPTION}: not a TorchScript file"):
        load_features(tmp_path, "fid")


class StandInLayers(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :2048]


class StandInInception(torch.nn.Module):
    """With the attributes that clean-fid reads of Inception's file."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = StandInLayers()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_inception_gets_clean_fids_resized_images(tmp_path: Path) -> None:
    """The file is TorchScript, which a stand-in can be; clean-fid's class loads it and sees 299 x 299 pixels."""
    from cleanfid.resize import make_resizer

    (tmp_path / FEATURES).mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(StandInInception()).save(str(tmp_path / FEATURES / INCEPTION))
        network = load_features(tmp_path, "fid")
    assert isinstance(network, Inception)
    images = make_images(2, 0)
    found = features(network, images)
    resized = make_resizer("PIL", False, "bicubic", (299, 299))(images[0])
    wanted = (torch.from_numpy(resized).permute(2, 0, 1).flatten()[:2048] - 128) / 128
    np.testing.assert_allclose(found[0], wanted.numpy(), rtol=1e-5)


# --- distances ----------------------------------------------------------------------------------


def test_distance_of_diagonal_gaussians_is_their_closed_form() -> None:
    one = Statistics(np.array([0.0, 1.0]), np.diag([1.0, 4.0]))
    other = Statistics(np.array([2.0, 1.0]), np.diag([9.0, 1.0]))
    # |mu1 - mu2|^2 + sum (sqrt s1 - sqrt s2)^2 = 4 + (1 - 3)^2 + (2 - 1)^2
    assert frechet_distance(one, other) == pytest.approx(9.0)
    assert frechet_distance(one, one) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("count", "other"), [(24, 24), (96, 24), (400, 96)])
def test_fewer_images_than_features_still_have_a_distance(
    count: int, other: int, capsys: pytest.CaptureFixture
) -> None:
    """Their covariances are singular: the trace of the root is then a nuclear norm, which says what must come out."""
    width = 320
    one, two = gaussian(count, width), gaussian(other, width, shift=0.1, scale=1.2, seed=1)
    found = frechet_distance(statistics(one, "one"), statistics(two, "two"))
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (one.astype(np.float64), two.astype(np.float64)))
    exact = np.sum((one.mean(0) - two.mean(0)) ** 2) + (a**2).sum() + (b**2).sum()
    exact -= 2 * np.linalg.svd(a @ b.T, compute_uv=False).sum()
    assert found == pytest.approx(exact, rel=1e-3)
    assert capsys.readouterr().out == ""


def test_a_root_that_rounding_makes_complex_is_taken_again_off_the_singular_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    one, other = (statistics(rng.standard_normal((6, 12)), "it") for _ in range(2))
    expected, original, calls = frechet_distance(one, other), cleanfid.fid.frechet_distance, []

    def complex_at_first(*moments: np.ndarray) -> float:
        calls.append(moments)
        if len(calls) == 1:
            raise ValueError("Imaginary component 0.1")
        return original(*moments)

    monkeypatch.setattr("cleanfid.fid.frechet_distance", complex_at_first)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-3)
    assert len(calls) == 2


def test_distance_grows_with_the_difference_and_a_judge_has_every_metric(base: Path) -> None:
    real = statistics(gaussian(300, 20), "real")
    near, far = (statistics(gaussian(300, 20, shift=s, seed=1), "made") for s in (0.1, 1.0))
    assert 0 < frechet_distance(near, real) < frechet_distance(far, real)
    judge, own = Judge(base, ["fd_lite0", "fd_lite0_96"], make_images(12, 0)), make_images(12, 0)
    assert list(judge.distances(own)) == ["fd_lite0", "fd_lite0_96"]
    assert judge.distances(own)["fd_lite0"] == pytest.approx(0, abs=1e-2)
    one, other = (judge.distances(made)["fd_lite0"] for made in (make_images(12, 1), 255 - make_images(12, 1) // 8))
    assert 0 < one < other


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_refused(count: int) -> None:
    with pytest.raises(UserError) as error:
        statistics(np.zeros((count, 320), np.float32), "data/tasks/waves/validation.parquet")
    assert str(error.value) == (
        f"data/tasks/waves/validation.parquet: found {count} images, allowed: at least 2, for a Fréchet distance"
    )


def test_features_that_are_not_numbers_are_refused(base: Path) -> None:
    broken = {**read_tensors(base / FEATURES / LITE0), "norm.bias": torch.full((32,), torch.nan)}
    with pytest.raises(UserError, match="features that are not numbers; its weights are broken"):
        features(lite0_of(broken, "file"), make_images(2, 0))
    with pytest.raises(UserError, match="images: found features that are not numbers"):
        statistics(np.full((4, 3), np.nan, np.float32), "images")
