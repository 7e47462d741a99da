"""probe: conditions and statistics swapped, and conditions that mean nothing."""

from pathlib import Path

from condpdiff.common.files import new_directory
from condpdiff.common.settings import section, tasks
from condpdiff.common.stage import run
from condpdiff.diffusion.settings import Condition, Ldm
from condpdiff.domain import module
from condpdiff.evaluate.condition_probe import Probing
from condpdiff.evaluate.settings import Eval, Probe
from condpdiff.generate.settings import Sample
from condpdiff.zoo.settings import Normalize

DATA = Path("data")


def main() -> None:
    condition, files = section("condition", Condition), {name: module("task").load_task(name) for name in tasks()}
    tokens = section("eval", Eval).batch_tokens
    settings, sample = section("probe", Probe), section("sample", Sample)
    method, dropout = section("normalize", Normalize).method, section("ldm", Ldm).condition_dropout
    of_one = lambda name: module("score").Panel(name, files[name], tokens, DATA)  # noqa: E731
    nonsense = lambda: module("conditions").nonsense_inputs(condition.kind)  # noqa: E731
    probing = Probing(settings, method, condition, dropout, sample, module("encoder").load_encoder, of_one)
    with new_directory(DATA / "probe") as out:
        probing.write(DATA, tasks(), nonsense, out)


if __name__ == "__main__":
    run(main)
