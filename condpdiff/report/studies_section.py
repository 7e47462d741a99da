"""The paper's tables and figures as studies: what the tables in docs/studies say, beside the paper's own figures."""

from pathlib import Path

import pandas as pd

from condpdiff.report.blocks import Block, Figures, Section, Table, Text, number, signed
from condpdiff.report.evaluation import AVERAGE, read_csv
from condpdiff.report.images import LIGHT, Image, colour, figure, image, marker, named_rows, styled

COLUMNS = ["study", "size", "row", "seed", "arm", "task", "value", "paper"]
STUDIES = Path("docs/studies")
FRAME = STUDIES / "frame.csv"
PAPER = Path("configs/paper/table1_glue.csv")
OF_FAMILIES = ("styles",)  # their values are shares of a gap, which docs/studies.md alone shows


def papers_variant(tasks: list[str]) -> tuple[pd.Series, int]:
    """condpdiff's score on each task in the paper's variant of the generator, mean over seeds, and how many seeds.

    Of the study `frame`; nothing where it has not been run on all these tasks.
    """
    rows = read_csv(FRAME, COLUMNS) if FRAME.is_file() else pd.DataFrame(columns=COLUMNS)
    rows = rows.query("row == 'paper' and arm == 'condpdiff' and task in @tasks").dropna(subset="value")
    means = rows.groupby("task")["value"].mean()
    return means if set(means.index) == set(tasks) else means[:0], rows["seed"].nunique()


def sections() -> list[Section]:
    """All tables of `docs/studies`, and a figure of each that has been run; nothing where there is none."""
    found = [
        (str(study), str(size), rows[rows["task"] == AVERAGE])
        for path in sorted(STUDIES.glob("*.csv"))
        if path.stem not in OF_FAMILIES
        for (study, size), rows in read_csv(path, COLUMNS).groupby(["study", "size"], sort=False)
    ]
    ran = [each for each in found if (each[2]["arm"][each[2]["value"].notna()] == "condpdiff_mean").any()]
    blocks: list[Block] = [_table(*each) for each in found]
    caption = "condpdiff_mean of each seed (dots) and the mean over seeds (diamond), beside the soup (square). Rows "
    caption += "whose diamonds lie no further apart than one row's dots are not told apart."
    blocks += [Figures(caption, [plot(*each) for each in ran])] if ran else []
    return [Section("studies", "Studies", blocks)] if blocks else []


@styled
def plot(study: str, size: str, rows: pd.DataFrame) -> Image:
    """A line a row of a study that has figures: seeds, their mean, and the soup; `rows` are of averages over tasks."""
    ours = rows[rows["arm"] == "condpdiff_mean"].dropna(subset="value")
    means = rows.pivot_table("value", "row", "arm").reindex(ours["row"].unique(), columns=["soup", "condpdiff_mean"])
    names = list(means.index)
    fig, (ax,) = figure(1.0 + 0.27 * len(names))
    ax.scatter(ours["value"], ours["row"].map(names.index), s=14, color=colour("condpdiff"), alpha=0.5, linewidths=0)
    for arm, column in (("soup", "soup"), ("condpdiff", "condpdiff_mean")):
        y, c, edge = range(len(names)), colour(arm), LIGHT["panel"]
        ax.plot(means[column], y, marker(arm), ms=5.5, color=c, mec=edge, mew=0.7, label=column)
    named_rows(ax, names, bold=None)
    ax.set(xlabel="average over tasks", title=study)
    return image(fig, f"study-{study}-{size}", f"{study}: condpdiff_mean of every row", legend=2)


def _table(study: str, size: str, rows: pd.DataFrame) -> Table:
    """Of averages over tasks."""

    def of(arm: str, column: str = "value") -> pd.DataFrame:
        by_row = rows[rows["arm"] == arm].groupby("row")[column]
        return by_row.agg(["mean", "std", "count"]).reindex(rows["row"].unique())

    ours, picked, soup, paper = of("condpdiff_mean"), of("condpdiff"), of("soup"), of("condpdiff", "paper")
    cells = {
        "seeds": pd.concat([ours, picked])["count"].groupby(level=0, sort=False).max().fillna(0).map("{:.0f}".format),
        "condpdiff_mean": ours["mean"].map(number),
        "std": ours["std"].map(number),
        "condpdiff": picked["mean"].map(number),
        "minus soup": (ours["mean"] - soup["mean"]).map(signed),
        "paper": paper["mean"].map(number),
    }
    caption = (
        f"`{study}` at the size `{size}`, means over tasks and seeds: condpdiff_mean is of all generated candidates, "
        "std its standard deviation over seeds; condpdiff is the selected candidate; minus soup is condpdiff_mean less "
        "the soup of the row's checkpoints. The paper's figures are of other models and tasks: compare differences of "
        "rows."
    )
    return Table.of(caption, "row", pd.DataFrame(cells))


def paper() -> Section:
    """What the paper reports of its own models."""
    arms = ["condpdiff", "original", "soup"]
    ranks = read_csv(PAPER, ["model", "rank", "task", *arms]).dropna(subset="condpdiff")
    average = ranks["task"] == "Average"
    gain = (ranks["condpdiff"] - ranks["original"])[~average]
    models = ranks[average].set_index("model")
    cells = models[arms].map(number, decimals=1).set_axis(models.index + ", rank " + models["rank"].astype(str))
    says = (
        "These are the paper's numbers, on GLUE and with other models, rows and heads: **they are not comparable with "
        f"ours**. They show what size of difference the paper reports: over its {len(gain)} cells with a LoRA rank, "
        f"condpdiff lies {gain.mean():+.3f} points from `original` on average."
    )
    table = Table.of("Mean over six GLUE tasks, in percent, from Table 1 of arXiv 2408.01415.", "model", cells)
    return Section("paper", "The paper's figures, for context", [Text(says), table])
