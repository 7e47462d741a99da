"""LoRA files as people have them, read and written.

PEFT        a folder: adapter_model.safetensors, adapter_config.json
diffusers   pytorch_lora_weights.safetensors, of diffusers' training scripts and SimpleTuner
kohya       one file of keys `lora_unet_...lora_down.weight`, with an alpha beside each matrix

Pickles are never opened. What a merge W0 + (alpha / r) B A does not hold is an error that names it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condpdiff.common.errors import UserError
from condpdiff.common.files import open_tensors, read_json, read_tensors, write_tensors
from condpdiff.zoo.adapters import LABELS
from condpdiff.zoo.placed import PREFIX

CONFIG, PEFT_FILE, ONE_FILE = "adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors"
PICKLED = ("adapter_model.bin", "pytorch_lora_weights.bin")
METADATA = "lora_adapter_metadata"
"""Where diffusers keeps PEFT's configuration inside its file."""
IGNORED = (
    "auto_mapping base_model_name_or_path inference_mode peft_type peft_version revision lora_alpha lora_dropout r "
    "modules_to_save target_modules task_type exclude_modules corda_config eva_config init_lora_weights loftq_config "
    "fan_in_fan_out layers_pattern lora_ga_config megatron_core ensure_weight_tying qalora_group_size runtime_config"
)
"""Keys of PEFT's configuration, as words, that change nothing of W0 + (alpha / r) B A; any other one must be empty."""
STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Ways of drawing A and B that leave W0 as it is."""


@dataclass(frozen=True)
class Adapter:
    """One LoRA, and the head that was trained with it."""

    tensors: dict[str, Tensor]
    """LoRA matrices and head by PEFT key, without an adapter's name: float32."""
    rank: int
    alpha: float
    base: str | None = None
    """What the base model is called; None where a file does not say."""
    config: dict[str, Any] = field(default_factory=dict)
    """`target_modules`, `modules_to_save`, `task_type`, as PEFT has them."""
    labels: list[str] | None = None
    """Class names in the order of their indices."""

    def part(self, lora: bool) -> dict[str, Tensor]:
        """The LoRA's matrices, or the head's tensors."""
        return {key: tensor for key, tensor in self.tensors.items() if (".lora_" in key) == lora}


def is_adapter(path: Path) -> bool:
    """Whether a file or folder looks like one adapter, readable or not."""
    inside = any((path / name).is_file() for name in (CONFIG, PEFT_FILE, ONE_FILE, *PICKLED))
    return inside or (path.suffix == ".safetensors" and path.is_file())


def read_adapter(path: Path) -> Adapter:
    """Read a PEFT folder, a folder with a diffusers file, or one file of diffusers' or kohya's keys.

    An adapter of another name than `default` lies in a folder of that name: where it is the only one it is found.

    Raises:
        UserError: there is no adapter; it is a pickle; it can't be read; it is more than W0 + (alpha / r) B A.
    """
    if path.is_dir() and not is_adapter(path):
        inside = [each for each in path.iterdir() if each.is_dir() and is_adapter(each)]
        if len(inside) != 1:
            raise UserError(f"{path}: no adapter in it, allowed: {CONFIG} with {PEFT_FILE}, or {ONE_FILE}")
        path = inside[0]
    safe = [path / name for name in (PEFT_FILE, ONE_FILE) if (path / name).is_file()]
    for pickled in (path, *(path / name for name in PICKLED)):
        if not safe and pickled.suffix in (".bin", ".ckpt", ".pkl", ".pt", ".pth") and pickled.is_file():
            raise UserError(f"{pickled}: a pickle, which may run code when it is opened; allowed: safetensors")
    if (path / CONFIG).is_file():
        config = read_json(path / CONFIG)
        _check_config(config, path / CONFIG)
        return _adapter(read_tensors(path / PEFT_FILE), config, {}, path)
    file = path / ONE_FILE if path.is_dir() else path
    with open_tensors(file) as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        said = (opened.metadata() or {}).get(METADATA, "{}")
    try:
        config = {re.sub(r"^(transformer|unet)\.", "", key): value for key, value in dict(json.loads(said)).items()}
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{file}: {METADATA}: found {said[:60]!r}, allowed: a configuration in JSON") from None
    _check_config(config, file)
    return _adapter(*_as_peft(tensors, file, config), file)


def _check_config(config: Any, where: Path) -> None:
    """Raise unless PEFT's configuration is of a plain LoRA."""
    if not isinstance(config, dict) or (kind := config.get("peft_type") or "LORA") != "LORA":
        raise UserError(f"{where}: peft_type: found {kind if isinstance(config, dict) else config!r}, allowed: LORA")
    if (start := config.get("init_lora_weights")) not in STARTS:
        raise UserError(f"{where}: init_lora_weights: found {start!r}, which changes the base model as well")
    for key, value in config.items():
        if key not in IGNORED.split() and value and value != "none":
            raise UserError(f"{where}: {key}: found {value!r}, allowed: a LoRA without it; B A alone is merged")


def _adapter(found: Mapping[str, Tensor], config: Mapping[str, Any], alphas: Mapping[str, float], at: Path) -> Adapter:
    """Rank and alpha as the file says, else as its tensors do; alpha is the rank where nothing says it."""
    tensors = {}
    for key, tensor in found.items():
        if not tensor.is_floating_point():
            raise UserError(f"{at}: {key}: found {tensor.dtype}, allowed: float32, float16, bfloat16")
        key = re.sub(r"\.(lora_[AB])\.[^.]+\.(weight|bias)$", r".\1.\2", key)  # a file may hold the adapter's name
        tensors[re.sub(r"\.modules_to_save\.[^.]+\.", ".", key)] = tensor.float()
    ranks = sorted({len(torch.atleast_1d(tensor)) for key, tensor in tensors.items() if key.endswith(".lora_A.weight")})
    if not ranks:
        raise UserError(f"{at}: no LoRA matrix in it, found: {', '.join([*tensors][:2]) or 'nothing'}")
    if ranks != [rank := config.get("r", ranks[0])]:
        raise UserError(f"{at}: found matrices of rank {', '.join(map(str, ranks))}, allowed: {rank} for all")
    if len(of := set(alphas.values())) > 1 or (of and len(alphas) != sum(".lora_A." in key for key in tensors)):
        raise UserError(f"{at}: found alphas {sorted(of)} on {len(alphas)} modules, allowed: one for all")
    names = sorted({key.removeprefix(PREFIX).split(".lora_")[0] for key in tensors if ".lora_" in key})
    about = {key: config.get(key) for key in ("modules_to_save", "task_type")}
    about["target_modules"] = config.get("target_modules") or names
    labels = (at if at.is_dir() else at.parent) / LABELS
    named = read_json(labels) if labels.is_file() else {}
    try:
        in_order = [str(named[number]) for number in sorted(named, key=int)] or None
        alpha = float(config.get("lora_alpha", min(of, default=rank)))
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"{at}: allowed: a number as lora_alpha, and in {LABELS} names by their indices") from None
    return Adapter(tensors, int(rank), alpha, config.get("base_model_name_or_path"), about, in_order)


def _as_peft(tensors: dict[str, Tensor], path: Path, config: Any) -> tuple[dict[str, Tensor], Any, dict[str, float]]:
    """Keys of diffusers or kohya -> PEFT's keys, the configuration, and the alphas of modules, where there are any."""
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    # OneTrainer calls a transformer what it is, kohya's scripts call it a U-Net.
    found = {re.sub("^lora_transformer_", "lora_unet_", key): tensor for key, tensor in tensors.items()}
    alphas = {
        key: tensor.item() for key, tensor in found.items() if key.endswith(".alpha") and len(tensor.flatten()) == 1
    }
    if any(key.startswith(("lora_unet_", "lora_te")) for key in found):
        try:
            found, _ = _convert_non_diffusers_lora_to_diffusers(found)
        except Exception as error:  # tensors of other shapes raise half a dozen kinds
            raise UserError(
                f"{path}: keys that diffusers can't convert: {' '.join(str(error).split())[:200]}"
            ) from None
    found = {key: tensor for key, tensor in found.items() if key not in alphas}
    if not any(".lora_A." in key for key in found):
        found = convert_unet_state_dict_to_peft(found)
    bare = {re.sub(r"^(transformer|unet|base_model\.model)\.", "", key): tensor for key, tensor in found.items()}
    return {PREFIX + key: tensor for key, tensor in bare.items()}, config, alphas


def write_diffusers(adapter: Adapter, folder: Path) -> None:
    """Write `pytorch_lora_weights.safetensors` as diffusers does: keys `transformer.<module>.lora_A.weight`."""
    from diffusers.loaders.lora_base import LoraBaseMixin

    config = {"r": adapter.rank, "lora_alpha": adapter.alpha, "target_modules": adapter.config["target_modules"]}
    layers: Any = {key.removeprefix(PREFIX): tensor for key, tensor in adapter.part(lora=True).items()}
    LoraBaseMixin._save_lora_weights(folder, {"transformer": layers}, {"transformer": config}, weight_name=ONE_FILE)
    (folder / ONE_FILE).chmod(0o644)


def write_kohya(adapter: Adapter, folder: Path) -> None:
    """Write the same file under kohya's keys."""
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya

    found = convert_state_dict_to_kohya(
        {key.replace(PREFIX, "unet.", 1): t for key, t in adapter.part(lora=True).items()}
    )
    alphas = {key: torch.tensor(adapter.alpha) for key in found if key.endswith(".alpha")}  # diffusers': the rank
    write_tensors(folder / ONE_FILE, found | alphas)
