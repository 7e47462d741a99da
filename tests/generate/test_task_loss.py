"""Training through the base model: what is trained is what is sampled, and the task loss reaches all that it should."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from condpdiff.autoencoder import models as autoencoder
from condpdiff.autoencoder.models import PcaAutoencoder, Scale, load_scale, save_latents
from condpdiff.common.stage import FOLDER
from condpdiff.common.task import MEMBERS, save_members
from condpdiff.common.training import SAVE_AFTER
from condpdiff.diffusion import process as diffusion
from condpdiff.diffusion.denoiser import Denoiser
from condpdiff.diffusion.process import Process
from condpdiff.generate.generator import Generator
from condpdiff.generate.task_loss import ONE_STEPS, SPARE, Through, folded, through_base, unfolded
from condpdiff.zoo.normalized import Frame, Moments, load_frame, normalise, save_frame, statistics_of
from condpdiff.zoo.placed import batched_loras
from tests.diffusion.test_process import make_settings
from tests.stand_ins import make_toy
from tests.tensors import random

TASKS, C, L, D = ["a", "b", "c"], 2, 4, 5


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three tasks of near-copies, through the stages up to their latents; the zoo has fewer axes than the decoder."""
    monkeypatch.chdir(tmp_path)
    data, (_, layout) = tmp_path / "data", make_toy()
    for folder in ("autoencoder", "latents", "normalized/a", "ldm"):
        (data / folder).mkdir(parents=True)
    save_members(MEMBERS, TASKS, [None] * 3)
    theta = {q: random(layout.K, seed=i) + 0.01 * random(2, layout.K, seed=10 + i) for i, q in enumerate(TASKS)}
    statistics = statistics_of("shared", {q: Moments.of([rows]) for q, rows in theta.items()}, layout)["a"]
    w = {q: normalise(rows, statistics) for q, rows in theta.items()}
    save_frame(data / "normalized/a", Frame(statistics, theta["a"].mean(0), torch.arange(layout.K)))
    decoder = PcaAutoencoder(layout.K, C, L)
    assert decoder.fit_closed_form(torch.cat(list(w.values())))
    autoencoder.save(data / "autoencoder" / autoencoder.FILE, decoder, {"arch": "pca", "K": layout.K, "C": C, "L": L})
    save_latents(data / "latents", {q: decoder.encode(rows) for q, rows in w.items()})
    return data


def parts(data: Path) -> tuple[PcaAutoencoder, Scale, Frame]:
    decoder = autoencoder.load(data / "autoencoder" / autoencoder.FILE)
    assert isinstance(decoder, PcaAutoencoder)
    return decoder, load_scale(data / "latents"), load_frame(data / "normalized", "a")


def make_model() -> Denoiser:
    """Untrained, but that it predicts something."""
    torch.manual_seed(0)
    model = Denoiser(C, L, (8, 8, 8), 1, D, network=True)
    torch.nn.init.normal_(model.leave.weight, std=0.1)
    return model


def test_unfolded_decoder_gives_the_same_weights_and_has_spare_axes(data: Path) -> None:
    (decoder, scale, frame), z = parts(data), random(6, C, L)
    scale = Scale(scale.shift + random(C, L, seed=1), scale.scale)  # as where tasks differ in number
    used = torch.linalg.vector_norm(decoder.axes, dim=1) > 0
    assert used.sum() == 5  # six rows, centred
    z.flatten(1)[:, ~used] = 0
    found = unfolded(decoder, scale, frame)
    expected = frame.to_theta(decoder.decode(scale.undo(z)))
    torch.testing.assert_close(found.decode(z), expected, rtol=1e-4, atol=1e-4)
    again, one = folded(found, frame)
    torch.testing.assert_close(frame.to_theta(again.decode(one.undo(z))), expected, rtol=1e-4, atol=1e-4)
    lengths = torch.linalg.vector_norm(found.axes, dim=1)
    torch.testing.assert_close(lengths[~used], (SPARE * lengths[used].mean()).expand(3))
    assert torch.equal(torch.linalg.vector_norm(decoder.axes, dim=1) > 0, used)  # the one that it was made of stays


@pytest.mark.parametrize("residual", ["diffusion", "none"])
def test_what_is_trained_is_what_is_sampled(data: Path, residual: str) -> None:
    (decoder, scale, frame), process = parts(data), Process("sample", residual)
    to_theta = unfolded(decoder, scale, frame)
    decoder, scale = folded(to_theta, frame)
    model, noise, y = make_model().eval(), random(3, C, L, seed=4), random(3, D)
    torch.nn.init.normal_(model.mean.network[-1].weight, std=0.1)
    through = Through(model, process, to_theta, steps=3)
    through._residual = lambda y, drawn, own=through._residual: own(y, noise)  # type: ignore[method-assign]
    with torch.no_grad():
        r, _ = diffusion.sample(lambda z_t, t: model(z_t, t, y), noise, process, scheduler="ddim", steps=3, seed=0)
        expected = Generator(model, process, decoder, scale).to_theta(model.mean.latent(r, y), frame)
        torch.testing.assert_close(through(y), expected, rtol=1e-4, atol=1e-4)


def test_a_share_of_a_conditions_numbers_is_dropped(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (_, layout), y, seen = make_toy(), torch.ones(3, D), list[Tensor]()
    forward = Through.forward
    monkeypatch.setattr(Through, "forward", lambda self, y: (seen.append(y), forward(self, y))[1])

    class Tasks:
        trained = torch.ones(layout.K)

        def __call__(self, step: int) -> tuple[Tensor, Any]:
            return y, lambda theta: theta.square().sum(1)

    settings = make_settings(task_loss={"steps": 20, "sampling_steps": 2, "dropout": 0.5})
    through_base(make_model(), Process("sample", "none"), data, Tasks(), settings)
    found = torch.stack(seen)
    assert set(found.unique().tolist()) == {0.0, 2.0} and 0.8 < found.mean() < 1.2


def test_cut_off_training_goes_on_with_the_draws_that_were_next(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings(task_loss={"steps": 60, "sampling_steps": 2})

    class Tasks:
        """Draws one after the other, as styles are."""

        trained = torch.ones(make_toy()[1].K)

        def __init__(self, last: int) -> None:
            self.random, self.left = np.random.default_rng(0), last

        def __call__(self, step: int) -> tuple[Tensor, Any]:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            y, aim = (torch.from_numpy(self.random.standard_normal(n, np.float32)) for n in ((3, D), (3, 1)))
            return y, lambda theta: (theta - aim).square().sum(1)

        def state_dict(self) -> dict[str, Any]:
            return {"random": self.random.bit_generator.state}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.random.bit_generator.state = state["random"]

    def trained(last: int) -> Any:
        return through_base(make_model(), Process("sample", "none"), data, Tasks(last), settings)

    whole = trained(1000)
    monkeypatch.setenv(FOLDER, str(data / "unfinished"))
    monkeypatch.setenv(SAVE_AFTER, "0")
    for last in (ONE_STEPS - 15, 60):  # of the one for all, and then of the task loss
        with pytest.raises(KeyboardInterrupt):
            trained(last)
    found = trained(1000)
    said = capsys.readouterr().out
    assert "one for all: going on from step 180" in said and "task loss: going on from step" in said
    assert torch.equal(found.one, whole.one) and torch.equal(found.trained[0].axes, whole.trained[0].axes)


@pytest.mark.parametrize("residual", ["diffusion", "none"])
def test_task_loss_falls_and_reaches_mean_decoder_and_denoiser(data: Path, residual: str) -> None:
    (base, layout), model = make_toy(), make_model()
    y, x = random(3, D, seed=1), random(8, 6, seed=2)
    labels = random(3, 8, 3, seed=3)  # of each task for the same rows

    class Tasks:
        trained = torch.ones(layout.K)

        def __call__(self, step: int) -> tuple[Tensor, Any]:
            return y, self.losses

        def losses(self, theta: Tensor) -> Tensor:
            with batched_loras(base, layout, 2.0, theta):
                return (base(x.repeat(3, 1)).unflatten(0, (3, 8)) - labels).square().mean((1, 2))

    before = {name: value.clone() for name, value in model.state_dict().items()}
    old, _ = folded(unfolded(*parts(data)), parts(data)[2])
    task_loss = {"steps": 60, "sampling_steps": 2, "lr": 3e-3, "decoder_lr": 3e-3}
    settings = make_settings(task_loss=task_loss, residual=residual)
    trained_on = through_base(model, Process("sample", residual), data, Tasks(), settings)
    trained_on.save(data / "ldm")
    curve = pd.read_csv(data / "ldm/task_loss.csv")["loss"]
    assert curve.iloc[-1] < 0.8 * curve.iloc[0]

    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert "mean.network.0.weight" in moved and "mean.spread" not in moved
    assert ("leave.weight" in moved) == (residual == "diffusion")
    assert not any(p.requires_grad for p in model.parameters())
    diffusion.save(data / "ldm" / diffusion.FILE, model, Process("sample", residual))
    found = Generator.load(data)  # with the decoder that was trained on, whose axes have the scale inside
    assert isinstance(found.decoder, PcaAutoencoder) and float((found.decoder.axes - old.axes).abs().min()) > 0
    assert torch.equal(found.scale.undo(torch.ones(1, C, L)), torch.ones(1, C, L))
    soup = unfolded(*parts(data)).mean
    one = trained_on.one
    assert Tasks().losses(one.expand(3, -1)).mean() < Tasks().losses(soup.expand(3, -1)).mean()
