"""Fréchet distances: the published feature network and formula, and one line where there is no distance."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from condpdiff.common.files import read_tensors, write_tensors
from condpdiff.style import metrics
from condpdiff.style.metrics import FEATURES, INCEPTION, LITE0
from tests.messages import message_of
from tests.style.stand_ins_style import make_images, random_lite0


def published(state: dict[str, torch.Tensor]) -> bytes:
    """Weights as the package's file has them: under other names, and the head behind."""
    return pickled({f"_layer.{i}": v for i, v in enumerate(state.values())} | {"_conv_head.weight": torch.zeros(2, 2)})


def pickled(value: object) -> bytes:
    buffer = BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_features_are_the_last_blocks_channels_whatever_the_batch(base: Path) -> None:
    network, images, seen = metrics.load_features(base), make_images(metrics.BATCH + 2, 0), []
    found = metrics.features(network, images)
    assert found.shape == (metrics.BATCH + 2, 320) and found.dtype == np.float32
    np.testing.assert_allclose(found[-2:], metrics.features(network, images[-2:]), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found, metrics.features(network, images))
    network.stem.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    metrics.features(network, np.stack([np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8)]))
    assert seen[0].shape == (2, 3, 32, 32)  # it sees minus one to one at its own size
    torch.testing.assert_close(seen[0], torch.ones_like(seen[0]) * torch.tensor([-1.0, 1.0])[:, None, None, None])


def test_published_weights_load_by_order_and_those_of_something_else_are_refused(tmp_path: Path) -> None:
    state = metrics.lite0_state(published(random_lite0()), "package")
    assert state.keys() == random_lite0().keys()
    assert all(torch.equal(state[key], value) for key, value in random_lite0().items())
    other = {key: value for key, value in random_lite0().items() if "blocks.6" not in key}
    said = message_of(metrics.lite0_state, published(other), "file")
    assert said == "file: found other weights, allowed: those of EfficientNet-Lite0"
    assert f"{LITE0}: no such file" in message_of(metrics.load_features, tmp_path)
    (tmp_path / FEATURES).mkdir()
    write_tensors(tmp_path / FEATURES / LITE0, other)
    assert "found other weights" in message_of(metrics.load_features, tmp_path)
    would_run_code = pickled({"a": Path("x")})
    for content in (b"", b"no weights", published(random_lite0())[:1000], would_run_code):
        assert message_of(metrics.read_state, content, "file").startswith("file: not a file of weights (")


@pytest.mark.parametrize(("count", "other"), [(24, 24), (8, 40)])
def test_distance_is_the_published_one_also_of_fewer_images_than_features(count: int, other: int) -> None:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), by a matrix root."""
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((count, 16)), 0.1 + 1.2 * rng.standard_normal((other, 16))
    found = metrics.frechet_distance(metrics.gaussian(one, "one"), metrics.gaussian(two, "two"))
    s1, s2 = (np.cov(x, rowvar=False) for x in (one, two))
    root = np.trace(sqrtm(s1 @ s2 + 1e-12 * np.eye(16))).real
    off = np.square(one.mean(0) - two.mean(0)).sum()
    assert found == pytest.approx(off + np.trace(s1) + np.trace(s2) - 2 * root, rel=1e-3)


def test_too_few_images_and_features_that_are_not_numbers_are_refused(base: Path) -> None:
    said = message_of(metrics.gaussian, np.zeros((1, 320), np.float32), "validation.parquet")
    assert said == "validation.parquet: found 1 images, allowed: at least 2, for a Fréchet distance"
    broken = {**read_tensors(base / FEATURES / LITE0), "norm.bias": torch.full((32,), torch.nan)}
    said = message_of(metrics.features, metrics.lite0_of(broken, "file"), make_images(2, 0))
    assert "features that are not numbers; its weights are broken" in said


class StandInLayers(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :2048]


def test_inception_gets_clean_fids_resized_images_or_is_missing_or_broken_in_one_line(tmp_path: Path) -> None:
    """The file is TorchScript, which a stand-in can be; clean-fid's class loads it and sees 299 x 299 pixels."""
    from cleanfid.resize import make_resizer

    said = f"{INCEPTION}: no such file; the metric fid needs params.yaml: base.inception"
    assert said in message_of(metrics.load_inception, tmp_path)
    (tmp_path / FEATURES).mkdir()
    (tmp_path / FEATURES / INCEPTION).write_bytes(b"no network")
    assert f"{INCEPTION}: not a TorchScript file" in message_of(metrics.load_inception, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.ModuleDict({"layers": StandInLayers()})).save(str(tmp_path / FEATURES / INCEPTION))
        network = metrics.load_inception(tmp_path)
    assert isinstance(network, metrics.Inception)
    images = make_images(2, 0)
    found = metrics.features(network, images)
    resized = make_resizer("PIL", False, "bicubic", (299, 299))(images[0])
    wanted = (torch.from_numpy(resized).permute(2, 0, 1).flatten()[:2048] - 128) / 128
    np.testing.assert_allclose(found[0], wanted.numpy(), rtol=1e-5)
