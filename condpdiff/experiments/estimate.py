"""What a run asks for, worked out before it runs: disk, memory, and the time of each stage on this machine.

Operations: a linear module of out x in weights takes 2 out in a token, a layer's attention 4 s^2 h a row (s tokens,
h hidden; Kaplan et al., arXiv 2001.08361, Table 1); gradients of what goes in take as many again, those of weights too.
So a step of fine-tuning a LoRA takes twice, one of training a whole network three times what a pass takes.
"""

import math
import re
import time
from collections.abc import Mapping
from typing import Any

from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.experiments.params import Params
from condpdiff.generate.settings import DOSES

FLOAT = 4  # bytes of a float32
RUNTIME = 900_000_000  # bytes that torch, transformers, peft and datasets hold once imported (measured)
RESIDENT = 512 * 2**20  # autoencoder.train.RESIDENT_BYTES, whose module would load torch
REFERENCE = 170e9  # operations a second of the machine that the seconds below are of
WIDE = 256  # hidden size at which a model's matrices reach half of the rate of large ones
# Stage -> seconds of imports and of all that is no product of matrices, and the share of the rate that those reach.
COSTS = {
    "check-params": (1.0, 1.0),
    "prepare-data": (2.0, 1.0),
    "prepare-base": (10.0, 1.0),
    "finetune-collect": (12.0, 0.7),
    "score-zoo": (7.0, 1.0),
    "normalize": (3.0, 1.0),
    "train-ae": (6.0, 0.4),
    "encode-latents": (3.0, 1.0),
    "encode-conditions": (10.0, 1.0),
    "train-ldm": (8.0, 0.4),
    "sample": (9.0, 0.1),
    "merge-eval": (9.0, 1.0),
    "probe": (9.0, 1.0),
    "report": (12.0, 1.0),
}
PER_TASK = ("prepare-data", "finetune-collect", "score-zoo", "merge-eval")
PDIFF = ((1, 64), (64, 128), (128, 256), (256, 256), (256, 32))
"""Channels of the convolutions of autoencoder.models.PdiffAutoencoder."""
LAYER = re.compile(r"(?:^|\.)(?:layer|layers|h|block|blocks|transformer_blocks)\.(\d+)\.")  # as zoo.layout has it


def rate() -> float:
    """float32 operations a second of this machine's processor: the best of half a second's 1,024 x 1,024 products."""
    import numpy as np

    side, best, end = 1024, math.inf, time.perf_counter() + 0.5
    one = np.random.default_rng(0).random((side, side), dtype=np.float32)
    while (start := time.perf_counter()) < end:
        one @ one
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def disk(params: Params, weights: int, k: int, k_generated: int, head: int) -> dict[str, int]:
    """Bytes a stage writes, all in float32 (T tasks, N_max collected, N used, S samples).

    data/base 4 W, of all its parts; data/zoo 4 T (N_max K + head); data/normalized 4 T (N K' + 2 K' + K): w, mean, std
    and the soup; data/autoencoder 4 A (A weights of E and D); data/samples 4 T K (S + the points of the trajectories +
    the doses); data/adapters 4 T (K + head).
    Rows, latents and reports are small beside these. Where the file system has no reflinks, DVC's cache
    holds a second copy.
    """
    t, sample = len(params.tasks), params.sample
    path = min(sample.trajectories, sample.count) * sample.trajectory_points
    parts = {
        "data/base": weights,
        "data/zoo": t * (params.collect.max_checkpoints * k + head),
        "data/normalized": t * ((params.normalize.n_checkpoints + 2) * k_generated + k),
        "data/autoencoder": sum(count for count, _ in autoencoder_layers(params.ae, k_generated)),
        "data/samples": t * k * (sample.count + path + doses(params)),
        "data/adapters": t * (k + head),
    }
    sizes = {name: FLOAT * values for name, values in parts.items()}
    return sizes | {"total": sum(sizes.values())}


def memory(
    params: Params, model: Mapping[str, Any], tasks: Mapping[str, Any], k: int, k_generated: int
) -> dict[str, int]:
    """Peak bytes of the three largest stages, on top of `RUNTIME` for the libraries.

    finetune-collect: 4 W + 4 N_max K + what the layers hold in a step without gradient checkpointing: 2 s b h
    (34 + 5 a s / h) bytes a layer in float32 (s tokens, b rows, h hidden, a heads; Korthikanti et al. 2022, whose
    count is for half precision); cross-attention adds 12 to the 34.
    train-ae: 4 T N K', or 512 MB of it and the rest read as it goes, + 16 A (A weights, their gradients and Adam's
    two moments) + 32 K' a row of the batch.
    merge-eval: 4 W + 4 K (N_max + S) + 4 N K' for the PCA control.
    """
    n, n_max, weights = params.normalize.n_checkpoints, params.collect.max_checkpoints, model["parameters"]
    h, a = model["hidden"], model["heads"]
    steps = [(task.finetune.batch_size, model["tokens"] or task.finetune.max_length) for task in tasks.values()]
    activations = max(2 * s * b * h * (model["activations"] + 5 * a * s / h) for b, s in steps)
    trained = sum(count for count, _ in autoencoder_layers(params.ae, k_generated))
    zoo = min(FLOAT * len(tasks) * n * k_generated, RESIDENT)
    return {
        "finetune-collect": RUNTIME + FLOAT * (weights + n_max * k) + int(activations) * model["layers"],
        "train-ae": RUNTIME + zoo + 4 * FLOAT * trained + 8 * FLOAT * k_generated * params.ae.batch_size,
        "merge-eval": RUNTIME + FLOAT * (weights + k * (n_max + params.sample.count) + n * k_generated),
    }


def seconds(
    params: Params,
    tasks: Mapping[str, Any],
    model: Mapping[str, Any],
    rows: Mapping[str, tuple[int, float]],
    k: int,
    speed: float,
    trained: Mapping[str, Any],
) -> dict[str, float]:
    """Each stage's seconds, all its tasks together: COSTS' seconds x REFERENCE / speed + operations / (share x speed).

    Args:
        model: the base's `architecture`.
        rows: of each task: how many of validation, tokens of one.
        k: weights that are generated.
        speed: operations a second, by `rate`.
        trained: file of configs/models/ of a base model that prepare-base trains, else empty.
    """
    collect, evaluate, ldm = params.collect, params.eval, params.ldm
    images = evaluate.images * evaluate.image_steps * (2 if evaluate.image_guidance > 1 else 1)
    styles = params.domain == "style"
    rated, (scored, validated) = doses(params), candidates(params)
    h, weights = model["hidden"], sum(o * i for name, (o, i) in model["linears"].items() if LAYER.search(name))
    work: dict[str, float] = dict.fromkeys(COSTS, 0.0)
    validation: dict[str, float] = {}
    for name, task in tasks.items():
        count, tokens = rows[name]
        row = (2 * weights * tokens + 4 * model["layers"] * tokens**2 * h) * (1 + WIDE / h)
        validation[name] = row * (images if styles else count)
        steps = (collect.steps or task.finetune.steps) + collect.max_checkpoints * collect.every
        work["finetune-collect"] += row * steps * (2 * task.finetune.batch_size + count / collect.validate_every)
        work["score-zoo"] += row * params.performance.rows * collect.max_checkpoints / params.performance.every
        work["merge-eval"] += row * (scored * evaluate.select_rows + rated * params.performance.rows)
        work["merge-eval"] += validation[name] * (validated + (0 if styles else rated))
    if params.ae.arch != "pca":
        products = sum(count * places for count, places in autoencoder_layers(params.ae, k))
        work["train-ae"] = 6.0 * params.ae.batch_size * products * params.ae.steps
    step = denoiser_operations(params)
    work["train-ldm"] = 3 * ldm.batch_size * step * ldm.steps
    work["sample"] = step * len(tasks) * (params.sample.count + rated) * params.sample.steps
    cells = 2 * len(tasks) + 1  # conditions, the nonsense and none among them, and other tasks' statistics
    work["probe"] = sum(validation.values()) * cells * params.probe.samples
    if trained:  # seconds a step of the small PixArt's two parts
        parts = 0.04 * trained["autoencoder"]["steps"] + 0.15 * trained["denoiser"]["steps"]
        work["prepare-base"] = REFERENCE * parts
    return {
        stage: (len(tasks) if stage in PER_TASK else 1) * fixed * REFERENCE / speed + work[stage] / (share * speed)
        for stage, (fixed, share) in COSTS.items()
    }


def candidates(params: Params) -> tuple[float, int]:
    """How many are scored on the select rows, and how many on validation, no LoRA among them.

    One each of no LoRA, soup and zero decode, five controls that are drawn, reconstructions, and samples; a race sees
    about half of the rows, and validates the winners alone.
    """
    drawn = 5 * params.eval.candidates + params.eval.extra_candidates + params.sample.count
    return (3 + drawn / 2, 10) if params.eval.select == "racing" else (3 + drawn, 3 + drawn)


def doses(params: Params) -> int:
    """Samples of the dose-response curve."""
    return len(DOSES) * params.sample.doses if params.ldm.performance != "none" else 0


def autoencoder_layers(settings: Autoencoder, k: int) -> list[tuple[int, int]]:
    """Weights, and positions that they are used at, of the layers of E and D; biases and norms are left out."""
    latent = settings.latent_channels * settings.latent_length
    if settings.arch == "pca":
        return [(latent * k, 2)]
    if settings.arch == "pdiff":  # five convolutions of width 7, each at half of the length before; mean channels
        return 2 * [(7 * sum(i * o for i, o in PDIFF), k // 8), (k * latent, 1)]
    patches, width = math.ceil(k / settings.patch), settings.width
    fold = (settings.patch * width * patches, 1)
    return 2 * [fold, *(2 * settings.depth * [(5 * width * width, patches)]), (width * patches * latent, 1)]


def denoiser_operations(params: Params) -> float:
    """Of one forward pass of one latent, about: a level's blocks, on either way, hold two convolutions of width 3."""
    blocks, length = params.ldm.blocks, params.ae.latent_length
    return sum(2 * 16 * blocks * c * c * length / 2**level for level, c in enumerate(params.ldm.channels))
