"""Between two styles: draws of held-out images, and images that are generated once and held against both styles."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from condpdiff.common.files import write_tensors
from condpdiff.evaluate.interpolation import Point, Scoring
from condpdiff.style.between import STRIP, both_prompts, score_between, unseen_inputs
from condpdiff.style.evaluation import Judge, Prompts
from condpdiff.style.rows import images
from condpdiff.style.score import Scorer
from condpdiff.zoo.checkpoints import HEAD, THETA, Zoo
from tests.style.stand_ins_style import SIZE, make_images, make_style_rows, save_style_base
from tests.style.stand_ins_style_zoo import make_style_task, make_style_zoo

SCORING = Scoring(batch_tokens=256, images=6, image_steps=2, image_guidance=1.0)
STYLES = {"waves": 3, "dots": 9}  # and the seed of its images
HELD_OUT = 100  # on top of that seed


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_style_base(tmp_path_factory.mktemp("pixart"))


@pytest.fixture
def zoo(base: Path) -> Zoo:
    return make_style_zoo(base, count=4)[0]


@pytest.fixture
def prepared(zoo: Zoo, tmp_path: Path) -> Path:
    """data/ with two styles' images and zoos."""
    for name, seed in STYLES.items():
        rows, zoos = tmp_path / "data/tasks" / name, tmp_path / "data/zoo" / name
        rows.mkdir(parents=True)
        zoos.mkdir(parents=True)
        make_style_rows(5, seed).to_parquet(rows / "validation.parquet", index=False)
        make_style_rows(5, seed + HELD_OUT).to_parquet(rows / "held_out.parquet", index=False)
        zoo.layout.save(zoos)
        write_tensors(zoos / THETA, {"theta": zoo.theta}, zoo.config)
        write_tensors(zoos / HEAD, {})
    return tmp_path / "data"


def score(points: list[Point], base: Path, prepared: Path, out: Path) -> pd.DataFrame:
    out.mkdir()
    tasks = {name: make_style_task() for name in STYLES}
    folders = {"data": prepared / "tasks", "zoos": prepared / "zoo", "base": base, "out": out}
    return score_between(points, tasks, SCORING, **folders)


def test_unseen_draws_are_held_out_images_as_many_as_the_condition_draws(prepared: Path) -> None:
    task = make_style_task()
    condition = task.condition.model_copy(update={"images": 3, "draws": 4})
    found = unseen_inputs(task.model_copy(update={"condition": condition}), prepared / "tasks/waves", "style_images")[
        "unseen_images"
    ]
    assert [draw.shape for draw in found] == [(3, SIZE, SIZE, 3)] * 4
    known = {image.tobytes() for image in make_images(5, STYLES["waves"] + HELD_OUT)}
    assert all(len({image.tobytes() for image in draw} & known) == 3 for draw in found)
    assert len({draw.tobytes() for draw in found}) > 1


def test_a_draw_of_few_held_out_images_has_all_of_them(prepared: Path) -> None:
    found = unseen_inputs(make_style_task(), prepared / "tasks/waves", "style_images")  # asks for 8 of 5
    held_out = make_images(5, STYLES["waves"] + HELD_OUT)
    assert all(np.array_equal(draw, held_out) for draw in found["unseen_images"])


@pytest.mark.parametrize("kind", ["one_hot", "learnable"])
def test_kinds_that_read_no_image_have_nothing_unseen(prepared: Path, kind: str) -> None:
    assert unseen_inputs(make_style_task(), prepared / "tasks/waves", kind) == {}


def test_prompts_are_of_both_styles_in_turn() -> None:
    one, other = (pd.DataFrame({"caption": captions}) for captions in (["a", "b", "c"], ["x"]))
    assert both_prompts([one, other], 8).captions == ["a", "x", "b", "x", "c", "x", "a", "x"]


@pytest.mark.parametrize(
    ("captions", "kept"),
    [
        ("abcdefghij", [0, 3, 6, 9]),
        ("aabbccddee", [0, 2, 6, 8]),
        ("aabbb", [0, 2, 1, 3]),
        ("aaa", [0, 1, 2]),
        ("ab", [0, 1]),
    ],
)
def test_prompts_to_be_looked_at_are_spread_over_the_captions(captions: str, kept: list[int]) -> None:
    assert Prompts(list(captions), list(range(len(captions)))).spread(STRIP) == kept


def test_images_are_generated_once_and_held_against_both_styles(
    base: Path, zoo: Zoo, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated: list[int] = []
    original = Scorer.generate
    monkeypatch.setattr(Scorer, "generate", lambda self, *rest: generated.append(1) or original(self, *rest))
    points = [
        Point("weights", 0.0, zoo.theta[:2]),
        Point("weights", 1.0, zoo.theta[2:]),
        Point("unseen_images", 1.0, zoo.theta[:1]),
    ]
    found = score(points, base, prepared, tmp_path / "out")
    assert list(found.columns) == ["kind", "lambda", "sample", "task", "score"]
    assert len(generated) == 5 and len(found) == 10
    assert found["task"].tolist() == list(STYLES) * 5
    assert (found["score"] > 0).all()

    validation = [pd.read_parquet(prepared / f"tasks/{name}/validation.parquet") for name in STYLES]
    prompts = both_prompts(validation, 6)
    scorer = Scorer(base, zoo, make_style_task(), {}, 256)
    scorer.merge(zoo.theta[3])
    made = scorer.generate(prompts.captions, prompts.seeds, 2, 1.0)
    expected = Judge(base, make_style_task(), images(validation[1])).distances(made)["fd_lite0"]
    row = found[(found["lambda"] == 1) & (found["sample"] == 1) & (found["task"] == "dots")]
    assert row["score"].tolist() == [pytest.approx(expected)]

    table = pd.read_csv(tmp_path / "out/images.csv")
    assert list(table.columns) == ["kind", "lambda", "file", "prompt", "seed"]
    assert table.groupby(["kind", "lambda"]).size().to_dict() == {
        ("weights", 0.0): STRIP, ("weights", 1.0): STRIP, ("unseen_images", 1.0): STRIP,
    }  # fmt: skip
    for row in table.itertuples():
        with Image.open(tmp_path / "out" / str(row.file)) as image:
            assert image.info == {"prompt": row.prompt, "seed": str(row.seed)}
            assert image.size == (SIZE, SIZE)
    first = Image.open(tmp_path / "out/images/unseen_images/0-2.png")
    assert np.array_equal(np.asarray(first), np.asarray(Image.open(tmp_path / "out/images/weights/0-2.png")))


def test_a_lora_that_does_not_work_has_no_distance(base: Path, zoo: Zoo, prepared: Path, tmp_path: Path) -> None:
    broken = torch.full((1, zoo.layout.K), float("nan"))
    assert score([Point("weights", 0.5, broken)], base, prepared, tmp_path / "out")["score"].isna().all()


def test_the_same_input_gives_the_same_bytes(base: Path, zoo: Zoo, prepared: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        score([Point("condition", 0.5, zoo.theta[:1])], base, prepared, tmp_path / name).to_csv(tmp_path / name / "s")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == STRIP + 2
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
