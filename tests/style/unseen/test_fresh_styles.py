"""The styles of the task loss, on a stand-in of PixArt: fresh ones come and go, those of the zoo stay."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from condpdiff.common.files import write_json, write_tensors
from condpdiff.common.settings import parse
from condpdiff.common.task import MEMBERS, SETTINGS, Data, save_members
from condpdiff.diffusion.conditions import PROJECTION, Projection
from condpdiff.diffusion.settings import Condition, TaskLoss
from condpdiff.style import conditions
from condpdiff.style.conditions import pictures_of
from condpdiff.style.data import NEUTRAL, prepare_data
from condpdiff.style.families import drawing
from condpdiff.style.images import encode_png
from condpdiff.style.unseen import fresh
from condpdiff.style.unseen.fresh import DRAWS, FIRST, MOST, Draws
from condpdiff.zoo.checkpoints import HEAD, THETA
from tests.style.stand_ins_style import CAPTIONS, make_family, make_images, make_style_zoo

CONDITION = parse(Condition, {"kind": "style_images", "encoder": "lite0_depths", "model": "x"}, "params.yaml")
POOL, TASKS, ROWS = 3, 2, 4


@pytest.fixture
def data(base: Path, in_a_folder: None, ten_photographs: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gradings, of which members 2 and 3 are trained on, and a zoo; the encoder gives the mean colour of a draw."""
    monkeypatch.setattr(fresh, "POOL", POOL)
    monkeypatch.setattr(fresh, "load_encoder", lambda _: lambda draws: torch.stack([colour(draw) for draw in draws]))
    save_family({"type": "drawn", "renderer": "grading"})
    folder, zoo = Path("data/zoo/waves"), make_style_zoo(base)
    folder.mkdir(parents=True)
    write_tensors(folder / THETA, {"theta": zoo.theta[:4, None]}, zoo.config)
    write_tensors(folder / HEAD, {})
    zoo.layout.save(folder)
    Path("data/base").symlink_to(base)
    return Path("data")


def save_family(source: dict[str, Any]) -> None:
    """As check-params and prepare-data leave it."""
    task = make_family(source)
    (SETTINGS / "waves").mkdir(parents=True, exist_ok=True)
    for section, value in task.model_dump(mode="json", exclude_none=True).items():
        write_json(SETTINGS / "waves" / f"{section}.json", value)
    save_members(MEMBERS, ["waves"], [task.members])
    conditions._rows.cache_clear()
    prepare_data("waves", task, Data(max_train=3, max_validation=9), Path("data/tasks/waves"))


def colour(pictures: np.ndarray) -> Tensor:
    assert 1 <= len(pictures) <= MOST
    return torch.from_numpy(pictures.mean((0, 1, 2))).float()


def styles(data: Path, seed: int = 0, axes: int | None = None, **keys: Any) -> Draws:
    settings: Any = SimpleNamespace(task_loss=TaskLoss(tasks=TASKS, rows=ROWS, **keys), seed=seed)
    return Draws(data, CONDITION.model_copy(update={"axes": axes}), None, settings)  # type: ignore[arg-type]


def theta(made: Draws, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(TASKS, made.denoising.layout.K, generator=torch.Generator().manual_seed(seed))


def test_step_has_conditions_of_so_many_styles_and_losses_each_on_its_own_images(data: Path) -> None:
    made = styles(data)
    y, losses = made(0)
    found, changed = losses(theta(made)), losses(torch.stack([theta(made)[0], theta(made, 1)[1]]))
    assert y.shape == (TASKS, 3) and found.shape == (TASKS,) and found.isfinite().all()
    assert torch.isclose(found, changed, rtol=1e-4).tolist() == [True, False]
    made.denoising = lambda theta, batch, *_: batch  # type: ignore[assignment]  # what the losses are of
    batch: Any = losses(y)
    for i, own in enumerate(y):
        (style,) = (each for each in made.pool if (each.y == own).all(1).any())
        latents, rows = (each[i * ROWS : (i + 1) * ROWS] for each in (batch.latents, batch.caption))
        assert style.y.shape == (DRAWS, 3) and len(rows.unique()) == ROWS
        assert torch.equal(latents, style.latents[rows])


def test_fresh_style_makes_way_after_its_uses_and_is_no_member(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, draw = [], drawing.draw
    monkeypatch.setattr(drawing, "draw", lambda kind, q, seed: drawn.append(q) or draw(kind, q, seed))
    made = styles(data, uses=2)
    for step in range(12):
        made(step)
        assert len(made.pool) == POOL
    assert drawn == list(range(FIRST, FIRST + made.made))
    gone = made.made - POOL
    assert 2 * gone <= 12 * TASKS <= 2 * gone + POOL  # each that went was seen twice, the others at most once
    assert made.pool[0].latents.shape[0] == len(fresh.captions()) == 10


def test_styles_of_the_zoo_stay_and_are_those_trained_on(data: Path) -> None:
    made = styles(data, fresh="zoo", uses=1)
    made(0)
    pool = list(made.pool)
    for step in range(1, 6):
        made(step)
    assert len(pool) == 2 and all(a is b for a, b in zip(pool, made.pool, strict=True))
    for each, q in zip(pool, (2, 3), strict=True):
        colours = torch.from_numpy(pictures_of(data / "tasks/waves", q).mean((1, 2))).float()
        low, high = colours.min(0).values - 1e-3, colours.max(0).values + 1e-3
        assert ((each.y >= low) & (each.y <= high)).all()
        true = fresh.to_tensor(pictures_of(data / "tasks/waves", q, "train"))
        torch.testing.assert_close(each.latents, fresh.encode_images(made.vae, true), rtol=0, atol=1e-6)
    assert (pool[0].latents - pool[1].latents).abs().max() > 1e-4


def test_folders_which_can_not_be_drawn_are_those_of_the_zoo_with_their_own_captions(data: Path) -> None:
    for folder in "abcd":
        Path("mine", folder).mkdir(parents=True)
        for i, image in enumerate(make_images(6, ord(folder))):
            Path("mine", folder, f"{i}.png").write_bytes(encode_png(image))
    captions = [f"{i}.png,{CAPTIONS[i % 4]}" for i in range(6)]
    Path("mine/d/captions.csv").write_text("\n".join(["file,caption", *captions]))
    save_family({"type": "folders", "path": "mine", "folders": list("abcd")})
    made = styles(data)
    y, losses = made(0)
    assert losses(theta(made)).isfinite().all() and len(made.pool) == 2
    names = list(made.caption)
    assert {names[i] for i in made.pool[0].caption} == {NEUTRAL} and len(made.pool[0].latents) == 3  # fewer than ROWS
    assert {names[i] for i in made.pool[1].caption} <= set(CAPTIONS)


def test_same_seed_gives_the_same_steps_and_another_one_others(data: Path) -> None:
    def steps(seed: int) -> Tensor:
        made = styles(data, seed, uses=1)
        return torch.stack([torch.cat([y, losses(theta(made))[:, None]], dim=1) for y, losses in map(made, range(3))])

    one, again, other = steps(0), steps(0), steps(1)
    assert torch.equal(one, again) and not torch.isclose(one[..., 3], other[..., 3], rtol=1e-3).any()
    assert not torch.isclose(one[0], one[1], rtol=1e-3).all()


def test_a_resume_point_holds_what_comes_next(data: Path, tmp_path: Path) -> None:
    made, other = styles(data, uses=2), styles(data, uses=2)
    for step in range(4):
        made(step)
    torch.save(made.state_dict(), tmp_path / "state")
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for step in range(4, 9):
        (y, losses), (again, its) = made(step), other(step)
        assert torch.equal(y, again) and torch.equal(losses(theta(made)), its(theta(made)))


def test_conditions_are_on_the_axes_that_training_conditions_were_put_on(data: Path) -> None:
    plain, _ = styles(data)(0)
    projection = Projection(torch.full((3,), 100.0), torch.full((3,), 50.0), torch.tensor([[1.0, 0, 0], [0, 2, 0]]))
    (data / "conditions").mkdir()
    write_tensors(data / "conditions" / PROJECTION, vars(projection))
    found, _ = styles(data, axes=2)(0)
    assert torch.equal(found, projection(plain))
