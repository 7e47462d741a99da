"""interpolate: LoRAs between two tasks and under conditions that training never drew, scored on both tasks."""

from pathlib import Path

from condpdiff.common.errors import run
from condpdiff.common.files import new_directory
from condpdiff.common.settings import section, tasks
from condpdiff.diffusion.settings import Condition
from condpdiff.domain import module
from condpdiff.evaluate.interpolation import pairs, score_points
from condpdiff.evaluate.settings import Eval, Interpolate, Scoring, pair_folder
from condpdiff.generate.settings import Sample

DATA = Path("data")


def main() -> None:
    settings, condition = section("interpolate", Interpolate), section("condition", Condition)
    scoring = Scoring(
        batch_tokens=section("eval", Eval).batch_tokens,
        images=section("eval", Eval).images,
        image_steps=section("eval", Eval).image_steps,
        image_guidance=section("eval", Eval).image_guidance,
    )
    files = {name: module("task").load_task(name) for name in tasks()}
    unseen, kind = module("conditions").unseen_inputs, condition.kind
    inputs = {name: unseen(task, DATA / "tasks" / name, kind) for name, task in files.items()}
    found = pairs(DATA, inputs, settings, section("sample", Sample), condition, module("encoder").load_encoder)
    with new_directory(DATA / "interpolation") as out:
        for pair, points in found:
            (out / pair_folder(*pair)).mkdir()
            panel = module("score").Panel({name: files[name] for name in pair}, scoring, DATA)
            score_points(points, panel, out / pair_folder(*pair))


if __name__ == "__main__":
    run(main)
