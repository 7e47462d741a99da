"""PixArt: where the LoRA goes, the published size and its K, the loss, the pipeline, and adapters that PEFT loads."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, PixArtAlphaPipeline
from peft import PeftModel

from condpdiff.common.settings import read_yaml
from condpdiff.style import models
from condpdiff.style.models import ATTENTION, PARTS, Examples, to_tensor
from condpdiff.zoo.adapters import export_adapter
from condpdiff.zoo.checkpoints import flatten, layout_of, unflatten
from tests.messages import message_of
from tests.style.stand_ins_style import CAPTIONS, SIZE, TRANSFORMER, make_images, make_style_rows, make_style_zoo

XL = read_yaml(Path("configs/models/pixart-xl-2-512x512.yaml"))
RANK, ALPHA = 2, 4.0


def changed(base: Path, tmp_path: Path, part: str, **keys: Any) -> Path:
    """A copy of the base whose `part/config.json` has other keys."""
    base = Path(shutil.copytree(base, tmp_path / "base"))
    if keys:
        path = base / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return base


def random_examples(count: int) -> Examples:
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    return Examples(torch.randn(count, 4, 8, 8), torch.arange(count) % 2, torch.randn(2, 5, 16), mask)


def test_k_of_pixart_is_28_layers_of_8_square_projections() -> None:
    model = models.empty_peft_model(XL["transformer"], 16, 1.0, "auto")
    layout = layout_of(model)
    assert layout.K == 28 * 8 * 16 * (1152 + 1152) == 8_257_536
    assert {p.device.type for p in model.parameters()} == {"meta"}
    said = message_of(models.empty_peft_model, XL["transformer"], 1, 1.0, ["query"])
    assert said.startswith("params.yaml: collect.target_modules: found ['query']: ")
    modules = {f"attn{i}.{name}" for i in (1, 2) for name in ATTENTION}
    assert {(e.layer, e.module) for e in layout.entries} == {(i, module) for i in range(28) for module in modules}


def test_published_configurations_have_the_published_numbers_of_weights() -> None:
    from transformers import T5Config, T5EncoderModel

    with torch.device("meta"):
        transformer, vae = models.build_transformer(XL["transformer"]), AutoencoderKL(**XL["vae"])
        text = T5EncoderModel(T5Config(**{k: v for k, v in XL["text_encoder"].items() if k != "model_type"}))
    counts = [sum(p.numel() for p in model.parameters()) for model in (transformer, vae, text)]
    assert counts == [610_856_096, 83_653_863, 4_762_310_656]


def test_early_published_class_name_is_taken_for_a_pixart(base: Path, tmp_path: Path) -> None:
    """PixArt-alpha's files were written before diffusers gave the class its name."""
    extra = {"_class_name": "Transformer2DModel", "double_self_attention": False, "num_vector_embeds": None}
    early, now = changed(base, tmp_path, "transformer", **extra), models.load_transformer(base).state_dict()
    assert all(map(torch.equal, models.load_transformer(early).state_dict().values(), now.values()))


@pytest.mark.parametrize(
    ("part", "keys", "said"),
    [
        ("transformer", {"_class_name": "UNet2DConditionModel"}, "found a transformer of class UNet2DConditionModel"),
        ("transformer", {"_class_name": "Transformer2DModel", "norm_type": "layer_norm"}, "PixArtTransformer2DModel"),
        ("vae", {"_class_name": "AutoencoderDC"}, "allowed: AutoencoderKL or AutoencoderTiny"),
    ],
)
def test_other_classes_are_refused(part: str, keys: dict[str, str], said: str, base: Path, tmp_path: Path) -> None:
    message = message_of(models.check_is_pixart, changed(base, tmp_path, part, **keys), "params.yaml: base.name")
    assert message.startswith("params.yaml: base.name: ") and said in message


@pytest.mark.parametrize("part", PARTS)
def test_base_without_a_part_or_its_weights_is_refused(part: str, base: Path, tmp_path: Path) -> None:
    base = changed(base, tmp_path, part)
    load = {"transformer": models.load_transformer, "vae": models.load_vae}.get(part, lambda _: embedded(base))
    for weights in (base / part).glob("*.safetensors"):
        weights.unlink() if part == "text_encoder" else weights.write_bytes(weights.read_bytes()[:-100])
        assert f"{part}: can't be loaded" in message_of(load, base)
    shutil.rmtree(base / part)
    said = message_of(models.check_is_pixart, base, "params.yaml: base.name")
    assert f"without {part}/" in said and "allowed: a PixArt pipeline" in said


def embedded(base: Path) -> tuple[torch.Tensor, torch.Tensor]:
    return models.embed_captions(base, ["lovely", "a really awful plot"])


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AutoencoderKL"])
def test_latents_are_scaled_and_decode_to_the_autoencoders_own_image(kind: str, base: Path, tmp_path: Path) -> None:
    """A variational autoencoder, as PixArt-XL's, gives its mean."""
    base = changed(base, tmp_path, "vae")
    if kind == "AutoencoderKL":
        small = {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4, "layers_per_block": 1}
        shutil.rmtree(base / "vae")
        AutoencoderKL(**{**XL["vae"], **small}).save_pretrained(base / "vae")
    vae, images = models.load_vae(base), to_tensor(make_images(3, 0))
    latents, own = models.encode_images(vae, images), vae.encode(images)
    bare = own.latent_dist.mean if kind == "AutoencoderKL" else own.latents
    torch.testing.assert_close(latents, (0.18215 if kind == "AutoencoderKL" else 0.8) * bare)
    torch.testing.assert_close(models.decode_latents(vae, latents), vae.decode(bare).sample)


def test_examples_embed_each_caption_once_and_alike_in_any_company(base: Path) -> None:
    rows = make_style_rows(10, 0)
    found = models.load_examples(base, rows)
    assert len(found) == 10 and len(found.embeddings) == len(CAPTIONS)
    assert found.embeddings.dtype == torch.float32 and not found.embeddings.requires_grad
    caption = rows["caption"][2].capitalize() + " "  # is lowered and stripped
    alone, _ = models.embed_captions(base, [caption])
    picked = found[torch.tensor([2])]
    torch.testing.assert_close(picked.embeddings[picked.caption][:, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5)
    latents = models.encode_images(models.load_vae(base), to_tensor(make_images(10, 0)[2:3]))
    torch.testing.assert_close(picked.latents, latents)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_loss_is_the_error_of_what_the_scheduler_wants_predicted(kind: str) -> None:
    examples, scheduler = random_examples(3), DDPMScheduler(prediction_type=kind)
    noise, timesteps = torch.randn(3, 4, 8, 8), torch.tensor([0, 500, 999])
    alpha = scheduler.alphas_cumprod[timesteps][:, None, None, None]
    latents = examples.latents
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    wanted = {"epsilon": noise, "sample": latents, "v_prediction": velocity}[kind]
    model = models.build_transformer(TRANSFORMER).eval()
    with torch.no_grad():
        noised = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        embeddings, mask = examples.embeddings[examples.caption], examples.mask[examples.caption]
        predicted = model(noised, embeddings, timesteps, encoder_attention_mask=mask).sample
        found = models.denoising_errors(model, scheduler, examples, noise, timesteps)
    torch.testing.assert_close(found, (predicted - wanted).square().mean((1, 2, 3)))


@pytest.mark.parametrize("changes", [{}, {"attention_head_dim": 12, "cross_attention_dim": 24, "sample_size": 128}])
def test_padding_of_a_caption_does_not_matter(changes: dict[str, int]) -> None:
    """Models for 1,024 pixels ask for a resolution besides."""
    examples, scheduler, noise = random_examples(2), DDPMScheduler(), torch.randn(2, 4, 8, 8)
    model = models.build_transformer(TRANSFORMER | changes).eval()

    def errors() -> torch.Tensor:
        return models.denoising_errors(model, scheduler, examples, noise, torch.tensor([300, 300]))

    one = errors()
    examples.embeddings[1, 2:] = 7.0
    torch.testing.assert_close(one, errors())
    examples.embeddings[1, 0] = 7.0
    assert not torch.allclose(one, errors())


def test_exported_adapter_loads_as_the_merged_weights_and_its_card_s_code_runs(base: Path, tmp_path: Path) -> None:
    zoo = make_style_zoo(base, 3)
    theta, layout = 3 * zoo.theta, zoo.layout
    export_adapter(tmp_path, theta[1], zoo, str(base), str(tmp_path))

    pipe = PixArtAlphaPipeline.from_pretrained(base)
    pipe.transformer = PeftModel.from_pretrained(pipe.transformer, tmp_path).eval()
    state = {key.replace(".default.", "."): value for key, value in pipe.transformer.state_dict().items()}
    assert torch.equal(flatten(state, layout), theta[1])

    merged = models.load_transformer(base)
    tensors = unflatten(theta[1], layout)
    for key in (e.key for e in layout.entries if ".lora_A." in e.key):
        module = merged.get_submodule(key.removeprefix("base_model.model.").split(".lora_A")[0])
        module.weight += ALPHA / RANK * tensors[key.replace("lora_A", "lora_B")] @ tensors[key]
    pipes = (models.pipeline(base, each) for each in (pipe.transformer, merged, models.load_transformer(base)))
    by_peft, by_hand, without = (models.generate(each, *embedded(base), [0, 1], 3, 1.0).astype(int) for each in pipes)
    assert np.abs(by_peft - by_hand).max() <= 1 and np.abs(by_peft - without).max() > 20

    code = (tmp_path / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    # The stand-in's text encoder has 66 positions, and two steps do.
    code = code.replace("use_res", "max_sequence_length=32, num_inference_steps=2, use_res")
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["image"].size == (SIZE, SIZE)
