"""interpolate: LoRAs between two tasks and under conditions that training never drew, scored on both tasks."""

from pathlib import Path

from condpdiff.common.errors import run
from condpdiff.common.files import new_directory, read_tensors
from condpdiff.common.settings import section, tasks
from condpdiff.diffusion import conditions as condition_file
from condpdiff.diffusion.conditions import load_conditions
from condpdiff.diffusion.settings import Condition
from condpdiff.domain import module
from condpdiff.evaluate.interpolation import Between, Scoring, weights
from condpdiff.evaluate.settings import Eval, Interpolate, pair_folder
from condpdiff.generate.generator import Generator
from condpdiff.generate.settings import Sample
from condpdiff.zoo.normalized import load_frame

DATA = Path("data")


def main() -> None:
    settings, condition = section("interpolate", Interpolate), section("condition", Condition)
    sample, domain = section("sample", Sample), module("between")
    scoring = Scoring(
        section("eval", Eval).batch_tokens,
        section("eval", Eval).images,
        section("eval", Eval).image_steps,
        section("eval", Eval).image_guidance,
    )
    generator = Generator.load(DATA)
    y = load_conditions(DATA / "conditions" / condition_file.FILE, tasks())
    with new_directory(DATA / "interpolation") as out:
        for number, pair in enumerate(settings.pairs_of(tasks())):
            where, files = out / pair_folder(*pair), {name: module("task").load_task(name) for name in pair}
            where.mkdir()
            one, other = (read_tensors(DATA / "samples" / f"{name}.safetensors")["theta"] for name in pair)
            points = weights(one[: settings.samples], other[: settings.samples], settings.lambdas)
            frames = (load_frame(DATA / "normalized", pair[0]), load_frame(DATA / "normalized", pair[1]))
            seed, what = settings.seed * 1000 + number, " to ".join(pair)
            between = Between(generator, frames, sample, settings.samples, seed, what)
            if condition.kind != "learnable":  # there is nothing between two indices
                points += between.condition((y[pair[0]], y[pair[1]]), settings.lambdas)
            unseen = [domain.unseen_inputs(files[name], DATA / "tasks" / name, condition.kind) for name in pair]
            if any(unseen):
                encode = module("encoder").load_encoder(condition)
                points += [
                    between.unseen(k, encode(v), end) for end, found in enumerate(unseen) for k, v in found.items()
                ]
            folders = {"data": DATA / "tasks", "zoos": DATA / "zoo", "base": DATA / "base", "out": where}
            domain.score_between(points, files, scoring, **folders).to_csv(where / "scores.csv", index=False)


if __name__ == "__main__":
    run(main)
