"""Image encoders of the condition: a frozen network's mean over a draw, and one line when it can't be had."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import ResNet18_Weights, resnet18

from condpdiff.common.settings import parse
from condpdiff.diffusion.conditions import Projection, unit_variance
from condpdiff.diffusion.settings import Condition
from condpdiff.style.encoder import COLOUR, LITE0_PACKAGE, depth_features, load_encoder, weights
from condpdiff.style.metrics import features, lite0_of
from tests.messages import message_of
from tests.style.stand_ins_style import make_images, random_lite0

DRAWS = [make_images(3, 0, 48), make_images(3, 1, 48)]
PACKAGE = f"package:{LITE0_PACKAGE}"


def load(name: str, model: str) -> Any:
    settings = {"kind": "style_images", "encoder": name, "model": model}
    return load_encoder(parse(Condition, settings, "params.yaml", "condition"))


def refusal(name: str, model: str) -> str:
    message = message_of(load, name, model)
    assert message.startswith("params.yaml: condition.model: ")
    return message


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights of each network."""
    torch.manual_seed(0)
    folder, found = tmp_path_factory.mktemp("weights"), {}
    for name, state in (("efficientnet_lite0", random_lite0()), ("resnet18", resnet18().state_dict())):
        found[name] = folder / f"{name}.pth"
        torch.save(state, found[name])
    return found


def test_vector_is_the_mean_over_a_draw_at_length_sqrt_d_whatever_the_order(files: dict[str, Path]) -> None:
    found = load("efficientnet_lite0", f"local-file:{files['efficientnet_lite0']}")([*DRAWS, DRAWS[0][::-1]])
    assert found.shape == (3, 320) and found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.full((3,), 320**0.5))
    mean = torch.from_numpy(features(lite0_of(random_lite0(), "x"), DRAWS[1])).mean(0)
    torch.testing.assert_close(found[1], unit_variance(mean[None])[0])
    torch.testing.assert_close(found[0], found[2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_resnet18_gives_its_pooled_features_behind_its_own_preprocessing(files: dict[str, Path]) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (2, 40, 70, 3), dtype=np.uint8)  # images need not be square
    found = load("resnet18", f"local-file:{files['resnet18']}")([DRAWS[0], wide])
    assert found.shape == (2, 512) and found.isfinite().all()
    network = resnet18()
    network.load_state_dict(torch.load(files["resnet18"], weights_only=True))
    network.fc = torch.nn.Identity()
    transform = ResNet18_Weights.IMAGENET1K_V1.transforms()
    batch = torch.stack([transform(Image.fromarray(image)) for image in DRAWS[0]])
    with torch.inference_mode():
        wanted = unit_variance(network.eval()(batch).mean(0)[None])[0]
    assert torch.nn.functional.cosine_similarity(found[0], wanted, dim=0) > 0.999  # Pillow rounds after resizing


def test_model_that_is_unknown_or_missing_or_another_one_s_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    place = "params.yaml: condition.model: found"
    said = f"{place} 'package:a', allowed for efficientnet_lite0: {PACKAGE} or local-file:PATH"
    assert refusal("efficientnet_lite0", "package:a") == said
    said = f"{place} {PACKAGE!r}, allowed for resnet18: torchvision:IMAGENET1K_V1 or local-file:PATH"
    assert refusal("resnet18", PACKAGE) == said
    assert "allowed: a readable file (No such file" in refusal("resnet18", f"local-file:{tmp_path}/no.pth")
    lite0, resnet = (f"local-file:{file}" for file in files.values())
    assert refusal("efficientnet_lite0", resnet).endswith("those of EfficientNet-Lite0")
    assert refusal("resnet18", lite0).endswith("those of ResNet18")


def test_unreachable_torchvision_weights_name_the_part_and_the_local_way(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = Mock(side_effect=ConnectionError("Name or service not known\nRetry later"))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    message = refusal("resnet18", "torchvision:IMAGENET1K_V1")
    assert "image encoder 'torchvision:IMAGENET1K_V1' can't be loaded (Name or service not known)" in message
    assert message.endswith("give it locally as local-file:PATH")


def test_features_of_every_depth_are_as_many_for_any_pictures_and_end_in_the_colours() -> None:
    network, pictures = lite0_of(random_lite0(), "x"), make_images(3, 0, 64)
    several = (pictures, pictures[:1], make_images(2, 0, 96), pictures[::-1].copy())
    found = [depth_features(network, each) for each in several]
    assert all(each.shape == (3658,) and each.isfinite().all() for each in found)
    torch.testing.assert_close(found[0], found[3], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    picture[..., 0], picture[..., 1], picture[:, :, :48, 2] = 255, np.arange(64) * 4, 255
    *_, colours, by_tone = depth_features(network, picture).split([3658 - 42, 21, 21])
    colours, by_tone = colours.reshape(7, 3), by_tone.reshape(7, 3)
    assert (colours[:, 0] == 1).all() and colours[:, 2].tolist() == [-1, -1, 1, 1, 1, 1, 1]
    torch.testing.assert_close(colours[:, 1], torch.linspace(0.05, 0.95, 7) * 2 - 1, rtol=0, atol=0.03)
    assert (by_tone[:, 1].diff() > 0).all() and by_tone[0, 2] == 1 > by_tone[-1, 2]  # green is light, and without blue


def test_each_depth_weighs_alike_and_colours_more_in_the_projection() -> None:
    settings = Condition(kind="style_images", encoder="lite0_depths", model="", axes=8)
    found = weights(settings)
    assert isinstance(found, torch.Tensor)
    squares = found.square()
    assert len(squares) == 3658 and squares.sum().item() == pytest.approx(32 + 2 * COLOUR**2)
    assert squares[-21:].sum().item() == pytest.approx(COLOUR**2)
    assert weights(settings.model_copy(update={"encoder": "resnet18"})) == 1
    vectors = torch.randn(50, 3658, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(Projection.fit(vectors, 8)(vectors), Projection.fit(vectors, 8, found)(vectors))
