"""The page over all results: complete, escaped, self-contained, small, the same bytes."""

import base64
import json
import random
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO

import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image
from studies import VERSIONS, make_runs, make_settings

from rrn.paper import collect, inline, report, table_format, tables

HOSTILE = 'sky</td><script>alert("&")</script>'


class Page(HTMLParser):
    """What a page holds: its tags with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if "style" not in self.open else ""

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def draw(path, size=(200, 100), noise=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", size, "white")
    if noise:
        picture = Image.frombytes("RGB", size, random.Random(path.name).randbytes(3 * size[0] * size[1]))
    picture.save(path)


@pytest.fixture
def repository(tmp_path):
    """A repository with two studies, the main one last by name."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "presets").mkdir()
    text = "# What <b>controls</b> do;\n#   on two lines.\nname: controls\n# not this\nthreads: 1\n"
    (tmp_path / "presets" / "ours.yaml").write_text(text)
    for name in ("controls", "shapes"):
        folder = tmp_path / "results" / name
        runs = make_runs({"cps_cutmix": (40, 42, 44), "rrn": (46, 47, 51)})
        tables.ablation(runs).write(folder)
        classes = runs.assign(**{"class": HOSTILE, "iou_mean": runs["miou_mean"], "iou_ensemble": 1.0, "pixels": 9})
        tables.per_class(classes).write(folder)
        table_format.Table("a_table", pd.DataFrame(), ["x|y"], [["p|q"]], 1, "Of bars.").write(folder)
        draw(folder / "figures" / "learning_curves_1of16.png")
    settings, versions = make_settings(["cps_cutmix", "rrn"], [0, 1, 2]), VERSIONS | {"numpy": ["2.1.0", "2.2.0"]}
    (tmp_path / "results/shapes/settings.json").write_text(json.dumps(collect.about(settings) | {"versions": versions}))
    return tmp_path


def test_studies_and_tables_stand_in_their_order(repository):
    text = report.write_report(repository).read_text()
    page = Page(text)
    assert not page.open and [a["id"] for a in page.all("h2")] == ["shapes", "controls"]
    files = [a["id"] for a in page.all("h3") if a["id"].startswith("shapes-")]
    assert files == [f"shapes-{name}" for name in ("ablation", "per_class", "a_table", "figures", "settings")]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(set(ids)) == len(ids)
    links = [a["href"] for a in page.all("a")]
    assert {f"#{name}" for name in ids} == {link for link in links if link.startswith("#")}


def test_numbers_bold_deviations_and_captions_are_kept(repository):
    text = report.write_report(repository).read_text()
    row = '<td>1of16</td><td>rrn</td><td class="number">3</td><td class="number"><strong>48.00 ± 2.65</strong></td>'
    assert text.count(row) == 2
    assert text.count("<strong>48.00 ± 2.65</strong>") == 2  # not in the table of classes
    assert "+6.00 [+3.52, +8.48]" in text and "**" not in text
    assert (repository / "results/shapes/ablation.md").read_text().splitlines()[-1] in Page(text).text
    assert '<th scope="row">' in text and "<td>p|q</td>" in text


def test_pictures_of_a_study_stand_among_its_figures(repository):
    before = Page(report.write_report(repository).read_text()).all("img")
    draw(repository / "results/row-pictures/shapes/figures/qualitative_1of16.png")
    after = Page(report.write_report(repository).read_text()).all("img")
    assert len(after) == len(before) + 1


def test_metrics_and_pieces_of_single_runs_are_no_study(repository):
    before = report.write_report(repository).read_bytes()
    folder = repository / "results" / "per-run" / "shapes"
    folder.mkdir(parents=True)
    (folder / "1of16-rrn-0.json").write_text('{"miou_mean": 46.0}')
    shutil.copytree(folder.parent, repository / "results" / "finished-runs")
    assert report.write_report(repository).read_bytes() == before


def test_what_was_measured_on_a_gpu_is_no_study(repository):
    before = report.write_report(repository).read_bytes()
    folder = repository / "results" / "gpu"
    folder.mkdir()
    (folder / "results.jsonl").write_text("{}")
    (folder / "results.md").write_text("| row |")
    assert report.write_report(repository).read_bytes() == before


def test_everything_is_escaped(repository):
    page = Page(report.write_report(repository).read_text())
    assert not page.all("script") and not page.all("b")
    assert HOSTILE in page.text and "What <b>controls</b> do; on two lines." in page.text
    assert "not this" not in page.text


def test_settings_and_versions_of_a_study_that_has_them(repository):
    page = Page(report.write_report(repository).read_text())
    said = json.loads((repository / "results/shapes/settings.json").read_text())
    assert f"Settings {said['settings']}. torch 2.0.1, numpy 2.1.0 and 2.2.0" in page.text
    assert "filter: {by: region_score}, rho: agreement" in page.text
    assert "steps: 500, lr_ramp: 10" in page.text and "scales: [1.0], flip: false" in page.text
    assert "controls-settings" not in [a.get("id") for a in page.all("h3")]


def test_the_page_loads_nothing(repository):
    text = report.write_report(repository).read_text()
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form", "video"}
    loads = [a[key] for _, a in page.tags for key in ("src", "srcset", "poster", "data", "background") if key in a]
    assert loads and all(load.startswith("data:image/webp;base64,") for load in loads)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert not [a for _, a in page.tags if "style" in a or any(key.startswith("on") for key in a)]
    outside = [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    assert outside == ["https://arxiv.org/abs/2304.11539", "../docs/overview.svg"]
    policy = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_figures_are_pictures_with_a_text(repository):
    shown = Page(report.write_report(repository).read_text()).all("img")
    assert [a["alt"] for a in shown] == ["Learning curves 1of16, shapes", "Learning curves 1of16, controls"]
    for attributes in shown:
        data = base64.b64decode(attributes["src"].split(",")[1])
        assert Image.open(BytesIO(data)).size == (int(attributes["width"]), int(attributes["height"])) == (200, 100)
        assert attributes["loading"] == "lazy"


def test_same_results_same_bytes(repository):
    first = report.write_report(repository).read_bytes()
    assert report.write_report(repository).read_bytes() == first  # the page is not a part of itself
    assert str(repository).encode() not in first


def test_the_page_stays_under_its_limit(repository, monkeypatch):
    for place in range(6):
        draw(repository / f"results/shapes/figures/noise_{place}.png", (300, 200), noise=True)
    monkeypatch.setattr(report, "LIMIT", 100_000)
    path = report.write_report(repository)
    assert 60_000 < path.stat().st_size < 100_000
    widths = {a["alt"]: int(a["width"]) for a in Page(path.read_text()).all("img")}
    assert widths["Learning curves 1of16, shapes"] == 200, "what is small stays as it is"
    assert len(widths) == 8 and widths["Noise 0, shapes"] < 300


def test_the_committed_page_is_small_and_holds_every_study():
    path = ROOT / "results" / "report.html"
    if not path.exists():
        pytest.skip("results/report.html was not written yet")
    assert path.stat().st_size < 1_000_000
    studies = {folder.name for folder in (ROOT / "results").iterdir() if any(folder.glob("*.md"))}
    assert {a["id"] for a in Page(path.read_text()).all("h2")} == studies


def test_what_cannot_fit_is_said(repository, monkeypatch, capsys):
    monkeypatch.setattr(report, "LIMIT", 3_000)
    monkeypatch.chdir(repository)
    assert report.main() == 1
    error = capsys.readouterr().err
    assert re.match(r"error: 2 figures do not fit into -\d+ characters, however small: remove folders from", error)
    assert not (repository / "results/report.html").exists()


def test_each_figure_gets_its_share(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path in paths:
        draw(path, (300, 200), noise=True)
    small, large = inline.inline(paths, 20_000), inline.inline(paths, 60_000)
    for figures, budget in ((small, 20_000), (large, 60_000)):
        assert sum(len(figure.uri) for figure in figures) <= budget
        assert figures[0].width == figures[1].width
    assert small[0].width < large[0].width


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "ablation.md",
            "no table\n",
            "results/shapes/ablation.md is no table as `rrn.paper.table_format` writes it: run",
        ),
        ("ablation.md", "| a | b |\n| :-- | --: |\n| 1 |\n", "results/shapes/ablation.md is no table as"),
        ("settings.json", "{", "results/shapes/settings.json is not as the ablation stage writes it (Expecting"),
        ("settings.json", "[]", "results/shapes/settings.json is not as the ablation stage writes it ('list'"),
    ],
)
def test_broken_files_are_named(repository, file, text, message):
    (repository / "results/shapes" / file).write_text(text)
    with pytest.raises(report.ReportError, match=re.escape(message)):
        report.write_report(repository)


def test_without_results_it_says_what_to_do(repository, monkeypatch, capsys):
    shutil.rmtree(repository / "results")
    monkeypatch.chdir(repository)
    assert report.main() == 1
    assert capsys.readouterr().err == "error: results/ holds no study: run `dvc repro` first\n"


def test_the_command_writes_the_page(repository):
    command = [sys.executable, "-m", "rrn.report"]
    run = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    size = (repository / "results/report.html").stat().st_size
    assert (run.returncode, run.stdout) == (0, f"results/report.html: {size} bytes\n")


def test_presets_tell_what_their_studies_are():
    told = report.abouts(ROOT / "presets")
    assert told["controls"].startswith("Variants of rho, of the objective and of the keep rule. The main rows")
    for name in ("sweep_threshold", "sweep_grid", "sweep_objective", "partitions"):
        assert "Budget: two seeds, the small design" in told[name]
