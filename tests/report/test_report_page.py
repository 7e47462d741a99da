"""The stage as a whole: what it writes, that it is the same each time, and that the page is self-contained."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from fake_run import build

from condpdiff.common.errors import UserError
from condpdiff.report import readme, show
from stages import report


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_report_is_the_same_bytes_each_time(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report.main()
    first = files(run / "report")
    plt.rcParams["font.size"] = 30  # a user's own Matplotlib settings must not show
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    try:
        report.main()
    finally:
        plt.rcdefaults()
    assert files(run / "report") == first


def test_everything_is_written(run: Path) -> None:
    report.main()
    written = set(files(run / "report"))
    assert {"metrics.json", "report.md", "results.md", "index.html"} <= written
    plots = ("arms", "doses", "finetune_loss", "finetune_validation", "autoencoder", "ldm")
    assert {f"plots/{name}.csv" for name in plots} <= written
    kinds = ("arms", "dose", "novelty", "tsne", "trajectories")
    assert {f"figures/{kind}-{t}.svg" for kind in kinds for t in ("movies", "tweets")} <= written
    assert "figures/between-movies--tweets.svg" in written
    assert "figures/mistakes-movies.svg" in written and "figures/mistakes-tweets.svg" not in written
    assert json.loads(Path("report/metrics.json").read_text())["tasks_not_learned"] == 0
    arms = pd.read_csv("report/plots/arms.csv")
    assert list(arms.columns) == ["task", "arm", "score", "low", "high"]
    assert ((arms["low"] <= arms["score"]) & (arms["score"] <= arms["high"])).all()
    for image in re.findall(r"!\[.*?\]\((.*?)\)", Path("report/report.md").read_text()):
        assert image in written


class Checker(HTMLParser):
    """Collects what a browser would fetch, ids, and elements that were not closed."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.fetched.append(value or "")
            if key == "id":
                self.ids.append(value or "")
            self.references += re.findall(r"url\(#(.*?)\)", value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_asks_no_host_for_anything(run: Path) -> None:
    report.main()
    html = Path("report/index.html").read_text()
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    assert all(x.startswith(("#", "data:")) for x in checker.fetched), checker.fetched
    assert not re.search(r"https?://|@import|url\((?!#)|<script [^>]*src", html)
    assert len(set(checker.ids)) == len(checker.ids)
    wanted = {x[1:] for x in checker.fetched if x.startswith("#")} | set(checker.references)
    assert wanted <= set(checker.ids)


def test_figures_follow_the_theme_in_the_page_and_stand_alone_as_files(run: Path) -> None:
    report.main()
    assert "var(--condpdiff)" in Path("report/index.html").read_text()
    svg = Path("report/figures/arms-movies.svg").read_text()
    assert "var(" not in svg and svg.startswith("<?xml") and "<dc:date>" not in svg and "<metadata>" not in svg


def test_one_task_has_no_average_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(build(tmp_path / "one", tasks=("tweets",)))
    report.main()
    results = Path("report/results.md").read_text()
    assert results.startswith("On tweets, condpdiff (") and "| mean |" not in results
    assert set(json.loads(Path("report/metrics.json").read_text())) == {"tweets", "average", "tasks_not_learned"}


def test_smallest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PCA has no curve to speak of; two checkpoints and one candidate have no spread."""
    root = build(tmp_path / "small", tasks=("movies",), n=2, count=1)
    (root / "data/autoencoder/curve.csv").write_text("step,loss\n0,0.1\n")
    monkeypatch.chdir(root)
    report.main()
    assert "figures/autoencoder.svg" not in files(root / "report")


def test_a_race_is_reported_without_what_needs_every_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(build(tmp_path / "race", tasks=("movies",), n=8, racing=True))
    report.main()
    page, results = Path("report/report.md").read_text(), Path("report/results.md").read_text()
    assert "Mean against mean" not in results
    assert "the best control" in results and "95 % interval" in results
    assert not list(Path("report/figures").glob("mistakes-*"))
    for absent in ("mean ± sample standard deviation", "picked on validation (paper)", "same mistakes", "count as 0"):
        assert absent not in page
    assert page.count("selected by racing (`eval.select`)") == 1
    assert "3,500 rows went through the models in place of 10,000" in page
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", page.lower())
    arms = pd.read_csv("report/plots/arms.csv")
    assert arms["score"].notna().all()
    assert arms.loc[arms["arm"] == "condpdiff", ["low", "high"]].isna().all(axis=None)
    html = Path("report/index.html").read_text()
    assert "NaN" not in html and "nan" not in re.findall(r' d="(.*?)"', html)


def test_no_doses_no_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = build(tmp_path / "none", tasks=("movies",), n=8, doses=0)
    for path in (root / "data/performance").iterdir():
        path.unlink()  # not even looked at
    monkeypatch.chdir(root)
    report.main()
    assert "Asked-for against obtained" not in Path("report/report.md").read_text()
    assert not list(Path("report/figures").glob("dose-*"))
    assert Path("report/plots/doses.csv").read_text() == "task,asked,candidate,loss,validation\n"


def test_samples_of_asked_for_performance_without_a_loss_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = build(tmp_path / "small", tasks=("movies",), n=8)
    path = root / "data/eval/movies/doses.csv"
    doses = pd.read_csv(path)
    doses.loc[[3, 9], "loss"] = float("nan")
    doses.to_csv(path, index=False)
    monkeypatch.chdir(root)
    report.main()
    assert "Task `movies`: 2 samples of asked-for performance have no loss" in capsys.readouterr().err


def test_the_table_of_checkpoints_losses_is_named_if_it_is_not_there(run: Path) -> None:
    (run / "data/performance/tweets.csv").unlink()
    with pytest.raises(UserError, match=r"data/performance/tweets.csv: no such file; run `dvc repro`"):
        report.main()


def test_a_task_that_learned_nothing_is_warned_of_everywhere(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "data/eval/movies/scores.csv"
    scores = pd.read_csv(path)
    scores.loc[scores["arm"].isin(["original", "majority"]), "validation"] = 69.2
    scores.to_csv(path, index=False)
    report.main()
    assert "warning: Task `movies` was not learned: collapsed" in capsys.readouterr().err
    for name in ("index.html", "report.md", "results.md"):
        assert "was not learned: collapsed" in Path("report", name).read_text()
    assert json.loads(Path("report/metrics.json").read_text())["tasks_not_learned"] == 1


def test_the_terminal_and_the_readme_show_the_results(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="run `dvc repro`"):
        show.main()
    report.main()
    show.main()
    shown = capsys.readouterr().out
    assert "condpdiff" in shown and "report/index.html" in shown and "**" not in shown
    assert len({len(line) for line in shown.splitlines() if line.startswith("|")}) == 1
    Path("README.md").write_text("# A\n<!-- results -->\nold\n<!-- /results -->\nend\n")
    readme.main()
    once = Path("README.md").read_text()
    readme.main()
    assert Path("README.md").read_text() == once
    assert "\nold\n" not in once and "| condpdiff" in once and once.endswith("<!-- /results -->\nend\n")
    with pytest.raises(UserError, match="README.md: no lines"):
        readme.refresh("# A\n", "x")


def test_the_stage_imports_neither_torch_nor_transformers() -> None:
    import subprocess

    code = "import sys, stages.report; print([m for m in ('torch', 'transformers', 'sklearn') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
