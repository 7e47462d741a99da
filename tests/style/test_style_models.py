"""PixArt: where the LoRA goes, the published size and its K, the loss, the pipeline, and adapters that PEFT loads."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, DPMSolverMultistepScheduler, PixArtAlphaPipeline
from peft import PeftModel

from condpdiff.common.errors import UserError
from condpdiff.common.settings import read_yaml
from condpdiff.style.models import (
    ATTENTION,
    CARD,
    PARTS,
    TASK_TYPE,
    Examples,
    build_transformer,
    check_is_pixart,
    decode_latents,
    denoising_errors,
    embed_captions,
    empty_peft_model,
    encode_images,
    generate,
    load_examples,
    load_transformer,
    load_vae,
    peft_transformer,
    pipeline,
)
from condpdiff.style.rows import to_tensor, to_uint8
from condpdiff.zoo.adapters import export_adapter
from condpdiff.zoo.checkpoints import Zoo
from condpdiff.zoo.layout import flatten, layout_of, unflatten
from tests.style.stand_ins_style import CAPTIONS, SIZE, TRANSFORMER, make_images, make_style_rows, save_style_base
from tests.style.stand_ins_style_zoo import make_style_zoo

XL = read_yaml(Path("configs/models/pixart-xl-2-512x512.yaml"))
RANK, ALPHA = 2, 4.0


@pytest.fixture(scope="module")
def pixart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_style_base(tmp_path_factory.mktemp("pixart") / "base")


def changed(pixart: Path, tmp_path: Path, part: str, **keys: Any) -> Path:
    """A copy of the base whose `part/config.json` has other keys."""
    shutil.copytree(pixart, tmp_path / "base")
    path = tmp_path / "base" / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return tmp_path / "base"


def random_examples(count: int, channels: int = 4, tokens: int = 5, width: int = 16) -> Examples:
    torch.manual_seed(0)
    return Examples(
        torch.randn(count, channels, 8, 8),
        torch.arange(count) % 2,
        torch.randn(2, tokens, width),
        torch.tensor([[1] * tokens, [1, 1, 0, 0, 0]]),
    )


# --- published sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "expected"), [(1, 516_096), (16, 8_257_536)])
def test_k_of_pixart_is_28_layers_of_8_square_projections(rank: int, expected: int) -> None:
    model = empty_peft_model(XL["transformer"], rank, 1.0, "auto")
    layout = layout_of(model)
    assert expected == layout.K == 28 * 8 * rank * (1152 + 1152)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert {e.layer for e in layout.entries} == set(range(28))
    assert {e.module for e in layout.entries} == {f"attn{i}.{name}" for i in (1, 2) for name in ATTENTION}


def test_published_configurations_have_the_published_numbers_of_weights() -> None:
    from transformers import T5Config, T5EncoderModel

    with torch.device("meta"):
        transformer, vae = build_transformer(XL["transformer"]), AutoencoderKL(**XL["vae"])
        text = T5EncoderModel(T5Config(**{k: v for k, v in XL["text_encoder"].items() if k != "model_type"}))
    counts = [sum(p.numel() for p in model.parameters()) for model in (transformer, vae, text)]
    assert counts == [610_856_096, 83_653_863, 4_762_310_656]


def test_unknown_modules_are_one_line(pixart: Path) -> None:
    with pytest.raises(UserError, match=r"^params.yaml: collect.target_modules: found \['query'\]: [^\n]*$"):
        peft_transformer(pixart, 0, 1, 1.0, ["query"])


# --- what is no PixArt --------------------------------------------------------------------------


def test_early_published_class_name_is_taken_for_a_pixart(pixart: Path, tmp_path: Path) -> None:
    """PixArt-alpha's files were written before diffusers gave the class its name."""
    extra = {"_class_name": "Transformer2DModel", "double_self_attention": False, "num_vector_embeds": None}
    base = changed(pixart, tmp_path, "transformer", **extra)
    one, two = load_transformer(base).state_dict(), load_transformer(pixart).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in two)


@pytest.mark.parametrize(
    ("part", "keys", "said"),
    [
        ("transformer", {"_class_name": "UNet2DConditionModel"}, "found a transformer of class UNet2DConditionModel"),
        ("transformer", {"_class_name": "Transformer2DModel", "norm_type": "layer_norm"}, "PixArtTransformer2DModel"),
        ("vae", {"_class_name": "AutoencoderDC"}, "found an autoencoder.*, allowed: AutoencoderKL or AutoencoderTiny"),
        *((part, None, f"without {part}/.*, allowed: a PixArt pipeline") for part in PARTS),
    ],
)
def test_base_that_is_no_pixart_is_refused(
    part: str, keys: dict[str, str] | None, said: str, pixart: Path, tmp_path: Path
) -> None:
    base = changed(pixart, tmp_path, part, **keys) if keys else Path(shutil.copytree(pixart, tmp_path / "base"))
    if not keys:
        shutil.rmtree(base / part)
    with pytest.raises(UserError, match=f"^params.yaml: base.name: .*{said}"):
        check_is_pixart(base, "params.yaml: base.name")


def test_truncated_weights_are_one_line(pixart: Path, tmp_path: Path) -> None:
    shutil.copytree(pixart, tmp_path / "base")
    for part, load in (("transformer", load_transformer), ("vae", load_vae)):
        weights = tmp_path / "base" / part / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(UserError, match=f"{part}: can't be loaded") as error:
            load(tmp_path / "base")
        assert "\n" not in str(error.value)
    (tmp_path / "base/text_encoder/model.safetensors").unlink()
    with pytest.raises(UserError, match="text_encoder: can't be loaded"):
        embed_captions(tmp_path / "base", ["good"])


# --- images and captions ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AutoencoderKL"])
def test_latents_are_scaled_and_decode_to_the_autoencoders_own_image(kind: str, pixart: Path, tmp_path: Path) -> None:
    """A variational autoencoder, as PixArt-XL's, gives its mean."""
    base = pixart
    if kind == "AutoencoderKL":
        base = Path(shutil.copytree(pixart, tmp_path / "base"))
        small = {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4, "layers_per_block": 1}
        shutil.rmtree(base / "vae")
        AutoencoderKL(**{**XL["vae"], **small}).save_pretrained(base / "vae")
    vae, images = load_vae(base), to_tensor(make_images(3, 0))
    latents, own = encode_images(vae, images), vae.encode(images)
    bare = own.latent_dist.mean if kind == "AutoencoderKL" else own.latents
    torch.testing.assert_close(latents, (0.18215 if kind == "AutoencoderKL" else 0.8) * bare)
    torch.testing.assert_close(decode_latents(vae, latents), vae.decode(bare).sample)


def test_caption_gets_the_same_embedding_in_any_company(pixart: Path) -> None:
    many, mask = embed_captions(pixart, ["lovely", "the film was really very good and fine", ""])
    alone, _ = embed_captions(pixart, ["Lovely "])  # the pipeline lowers and strips
    assert many.shape[:2] == mask.shape
    assert many.dtype == torch.float32 and not many.requires_grad
    torch.testing.assert_close(many[:1, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5)


def test_examples_embed_each_caption_once(pixart: Path) -> None:
    rows = {"train": make_style_rows(10, 0), "validation": make_style_rows(3, 1)}
    found = load_examples(pixart, rows)
    assert [len(found[name]) for name in rows] == [10, 3]
    assert len(found["train"].embeddings) == len(CAPTIONS)
    alone, _ = embed_captions(pixart, [rows["validation"]["caption"][2]])
    picked = found["validation"][torch.tensor([2])]
    torch.testing.assert_close(picked.embeddings[picked.caption][:, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5)
    images = to_tensor(np.concatenate([make_images(3, 1)]))
    torch.testing.assert_close(found["validation"].latents, encode_images(load_vae(pixart), images))


# --- the loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_loss_is_the_error_of_what_the_scheduler_wants_predicted(kind: str) -> None:
    examples, scheduler = random_examples(3), DDPMScheduler(prediction_type=kind)
    noise, timesteps = torch.randn(3, 4, 8, 8), torch.tensor([0, 500, 999])
    alpha = scheduler.alphas_cumprod[timesteps][:, None, None, None]
    latents = examples.latents
    wanted = {
        "epsilon": noise,
        "sample": latents,
        "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * latents,
    }[kind]
    model = build_transformer(TRANSFORMER).eval()
    with torch.no_grad():
        noised = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        caption = examples.embeddings[examples.caption], examples.mask[examples.caption]
        predicted = model(noised, caption[0], timesteps, encoder_attention_mask=caption[1]).sample
        found = denoising_errors(model, scheduler, examples, noise, timesteps)
    torch.testing.assert_close(found, (predicted - wanted).square().mean((1, 2, 3)))


def test_padding_of_a_caption_does_not_matter() -> None:
    examples, scheduler = random_examples(2), DDPMScheduler()
    model, noise = build_transformer(TRANSFORMER).eval(), torch.randn(2, 4, 8, 8)

    def errors() -> torch.Tensor:
        return denoising_errors(model, scheduler, examples, noise, torch.tensor([300, 300]))

    one = errors()
    examples.embeddings[1, 2:] = 7.0
    torch.testing.assert_close(one, errors())
    examples.embeddings[1, 0] = 7.0
    assert not torch.allclose(one, errors())


@pytest.mark.parametrize("sample_size", [8, 128])
def test_training_step_of_a_shrunken_pixart_xl_moves_the_lora_alone(sample_size: int, tmp_path: Path) -> None:
    """Its 8 output channels, its T5's caption width, and what the models for 1,024 pixels ask for besides."""
    small = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "cross_attention_dim": 24}
    config = {**XL["transformer"], **small, "caption_channels": 32, "sample_size": sample_size}
    build_transformer(config).save_pretrained(save_style_base(tmp_path / "base") / "transformer")
    model = peft_transformer(tmp_path / "base", 0, RANK, ALPHA, "auto")
    scheduler = DDPMScheduler.from_config(DPMSolverMultistepScheduler(**XL["scheduler"]).config)
    examples, noise = random_examples(4, width=32), torch.randn(4, 4, 8, 8)
    denoising_errors(model, scheduler, examples, noise, torch.tensor([50, 300, 600, 900])).mean().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None}
    assert moved == {name for name, _ in model.named_parameters() if ".lora_" in name}
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# --- the pipeline, and adapters -----------------------------------------------------------------


def render(pixart: Path, transformer: torch.nn.Module, guidance: float = 1.0, seeds: tuple[int, ...] = (0, 1)) -> Any:
    embeddings, mask = embed_captions(pixart, ["lovely", "a really awful plot", ""])
    count = len(seeds)
    empty = embeddings[2:], mask[2:]
    return generate(pipeline(pixart, transformer), embeddings[:count], mask[:count], seeds, 3, guidance, empty)


def test_images_come_from_their_own_caption_and_seed(pixart: Path) -> None:
    transformer = load_transformer(pixart)
    images = render(pixart, transformer)
    assert images.shape == (2, SIZE, SIZE, 3) and images.dtype == np.uint8
    assert np.array_equal(images, render(pixart, transformer))
    assert np.array_equal(images[:1], render(pixart, transformer, seeds=(0,)))
    assert not np.array_equal(images[0], render(pixart, transformer, seeds=(1,))[0])
    assert not np.array_equal(images, render(pixart, transformer, guidance=4.5))


def test_pipeline_decodes_as_decode_latents(pixart: Path) -> None:
    pipe = pipeline(pixart, load_transformer(pixart))
    embeddings, mask = embed_captions(pixart, ["lovely"])
    asked = {"prompt_embeds": embeddings, "prompt_attention_mask": mask, "num_inference_steps": 2, "guidance_scale": 1}
    asked |= {"negative_prompt": None, "use_resolution_binning": False}
    latents = pipe(**asked, generator=torch.Generator().manual_seed(5), output_type="latent").images
    one = generate(pipe, embeddings, mask, [5], 2, 1.0)
    assert np.abs(one.astype(int) - to_uint8(decode_latents(pipe.vae, latents)).astype(int)).max() <= 1


@pytest.fixture
def zoo(pixart: Path) -> Zoo:
    return make_style_zoo(pixart, 3)[0]


def test_exported_adapter_loads_into_the_pipeline_as_the_merged_weights(pixart: Path, zoo: Zoo, tmp_path: Path) -> None:
    theta, layout = 3 * zoo.theta, zoo.layout
    export_adapter(tmp_path, theta[1], zoo, str(pixart), "data/adapters/waves", TASK_TYPE, CARD)

    pipe = PixArtAlphaPipeline.from_pretrained(pixart)
    pipe.transformer = PeftModel.from_pretrained(pipe.transformer, tmp_path).eval()
    state = {key.replace(".default.", "."): value for key, value in pipe.transformer.state_dict().items()}
    assert torch.equal(flatten(state, layout), theta[1])

    merged = load_transformer(pixart)
    tensors = unflatten(theta[1], layout)
    for key in (e.key for e in layout.entries if ".lora_A." in e.key):
        module = merged.get_submodule(key.removeprefix("base_model.model.").split(".lora_A")[0])
        module.weight += ALPHA / RANK * tensors[key.replace("lora_A", "lora_B")] @ tensors[key]
    by_peft, by_hand, without = (render(pixart, t) for t in (pipe.transformer, merged, load_transformer(pixart)))
    assert np.abs(by_peft.astype(int) - by_hand.astype(int)).max() <= 1
    assert np.abs(by_peft.astype(int) - without.astype(int)).max() > 20


def test_card_of_an_adapter_shows_code_that_runs(pixart: Path, zoo: Zoo, tmp_path: Path) -> None:
    export_adapter(tmp_path, zoo.theta[0], zoo, str(pixart), str(tmp_path), TASK_TYPE, CARD)
    code = (tmp_path / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    # The stand-in's text encoder has 66 positions, and two steps do.
    code = code.replace("use_res", "max_sequence_length=32, num_inference_steps=2, use_res")
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["image"].size == (SIZE, SIZE)
