"""probe: conditions and statistics swapped, conditions that mean nothing, and tasks left out of training."""

from pathlib import Path

import pandas as pd

from condpdiff.autoencoder.settings import Autoencoder
from condpdiff.common.errors import run
from condpdiff.common.files import new_directory
from condpdiff.common.settings import section, tasks
from condpdiff.diffusion.settings import Condition, Ldm
from condpdiff.domain import module
from condpdiff.evaluate import condition_probe as probe
from condpdiff.evaluate.interpolation import Scoring
from condpdiff.evaluate.settings import Eval, Probe
from condpdiff.generate.generator import Draw
from condpdiff.generate.settings import Sample
from condpdiff.zoo.settings import Normalize

DATA = Path("data")


def main() -> None:
    settings = section("probe", Probe)
    swap, unseen = rows(settings) if settings.samples else ([], [])
    with new_directory(DATA / "probe") as out:
        pd.DataFrame(swap, columns=probe.SWAP).to_csv(out / "swap.csv", index=False)
        pd.DataFrame(unseen, columns=probe.UNSEEN).to_csv(out / "unseen.csv", index=False)


def rows(settings: Probe) -> tuple[list[probe.SwapRow], list[probe.UnseenRow]]:
    """Rows of both tables."""
    names, condition, domain = tasks(), section("condition", Condition), module("probe")
    ae, ldm, method = section("ae", Autoencoder), section("ldm", Ldm), section("normalize", Normalize).method
    scoring = Scoring(
        section("eval", Eval).batch_tokens,
        section("eval", Eval).images,
        section("eval", Eval).image_steps,
        section("eval", Eval).image_guidance,
    )
    files = {name: module("task").load_task(name) for name in names}
    known = probe.Known.load(DATA, names, ldm.performance)
    nonsense = domain.nonsense_inputs(files[names[0]], condition.kind)
    encoded = module("encoder").load_encoder(condition)(nonsense) if nonsense else None
    draw = Draw(section("sample", Sample), settings.samples, settings.seed)
    w = probe.conditioned(DATA, known.y, encoded, ldm, draw)
    swap, unseen = [], []
    for name in names:
        score = domain.load_score(name, files[name], scoring, DATA / "tasks", DATA / "zoo", DATA / "base")
        swap += probe.swap_rows(w, known.frames, method, name, score)
        if name in settings.left_out(names, condition.kind):
            made = draw(probe.train_without(name, known, ae, ldm, settings.ldm_steps), known.y[name], f"unseen {name}")
            unseen += probe.unseen_rows(made, known.frames[name], probe.guesses(known, name), method, name, score)
    return swap, unseen


if __name__ == "__main__":
    run(main)
