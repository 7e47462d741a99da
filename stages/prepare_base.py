"""prepare-base: the pre-trained model and its tokenizer, in one folder."""

from pathlib import Path

from condpdiff.common.settings import section
from condpdiff.common.stage import run
from condpdiff.common.task import Base
from condpdiff.domain import module

OUT = Path("data/base")


def main() -> None:
    module("base").prepare_base(section("base", Base), OUT)


if __name__ == "__main__":
    run(main)
