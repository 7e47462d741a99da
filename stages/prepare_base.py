"""prepare-base: the pre-trained model and its tokenizer, in one folder."""

from pathlib import Path

from condpdiff.domain import module
from condpdiff.errors import run
from condpdiff.params.base import Base
from condpdiff.params.section import section

OUT = Path("data/base")


def main() -> None:
    module("base").prepare_base(section("base", Base), OUT)


if __name__ == "__main__":
    run(main)
