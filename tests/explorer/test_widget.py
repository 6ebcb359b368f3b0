"""The explorer's widget: what a control does to the picture, the table and the curves. Without a browser."""

import asyncio
import html
import json
import shutil
import subprocess
import sys
import zipfile

import evidences
import pytest
from conftest import PATIENCE, ROOT
from papermill import inspect_notebook

from rrn.explorer import widget
from rrn.explorer.analysis import Regions
from rrn.explorer.widget import Explorer
from rrn.reliability.evidence import Evidence


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    broken = folder / "broken.zip"
    broken.write_bytes(b"<b>no archive</b>")
    judged = evidences.write(folder / "judged.zip")
    torn = folder / "torn.zip"
    with zipfile.ZipFile(judged) as source, zipfile.ZipFile(torn, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"no picture" if name == "val/1/image.jpg" else source.read(name))
    return {
        "results/<i>judged</i>": judged,
        "blind": evidences.write(folder / "blind.zip", judged=False, size=(33, 20), seed=1),
        "broken": broken,
        "torn": torn,
        "gone": folder / "gone.zip",
    }


@pytest.fixture
def explorer(paths):
    return Explorer(paths)


def shown(explorer):
    return explorer.image.value, explorer.curves.value, explorer.table.value, explorer.summary.value


def test_it_begins_with_the_rows_own_rule(explorer):
    assert (explorer.rule.value, explorer.keep.value, explorer.value.value) == ("region_score", "fraction", 0.75)
    assert (explorer.score.value, explorer.rho.value, explorer.id.value) == ("region_score", "agreement", "val_0")
    assert {bytes(image.value)[:4] for image in (explorer.image, explorer.curves)} == {b"\x89PNG"}
    said = widget.analysis.summary(explorer.regions, explorer.choice)
    assert html.escape(said) in explorer.summary.value and said.startswith("This image: kept ")


def test_a_slider_that_moves_changes_everything(explorer):
    before = shown(explorer)
    explorer.value.value = 0.3
    after = shown(explorer)
    assert all(one != two for one, two in zip(before, after, strict=True))
    explorer.value.value = 0.75
    assert shown(explorer) == before


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("index", 2),
        ("id", "val_2"),
        ("rule", "confidence"),
        ("rule", "none"),
        ("keep", "threshold"),
        ("score", "agreement"),
        ("rho", "none"),
        ("rho", "product"),
        ("segmenters", (2,)),
        ("split", "unlabeled"),
        ("run", "blind"),
    ],
)
def test_every_control_changes_the_picture(explorer, control, value):
    before = shown(explorer)
    getattr(explorer, control).value = value
    assert explorer.image.value != before[0]
    assert "rrn-error" not in explorer.summary.value


def test_while_a_slider_moves_the_picture_goes_first_and_the_rest_follows_once(explorer, monkeypatch):
    monkeypatch.setattr(widget, "REST", 0.05)
    drawn = []
    figure = widget.split_view.split_figure
    monkeypatch.setattr(widget.split_view, "split_figure", lambda *given: drawn.append(given) or figure(*given))

    async def moved():
        pictures, before = [], explorer.curves.value
        for value in (0.6, 0.5, 0.4):
            explorer.value.value = value
            pictures.append(explorer.image.value)
        assert len(set(pictures)) == 3
        assert explorer.curves.value == before and not drawn
        async with asyncio.timeout(PATIENCE):
            while explorer.curves.value == before:
                await asyncio.sleep(0.02)

    asyncio.run(moved())
    assert [choice.value for _, choice in drawn] == [0.4]


def test_what_waits_to_be_drawn_is_forgotten_with_its_run(explorer, monkeypatch):
    monkeypatch.setattr(widget, "REST", 0.05)
    failures = []

    async def moved():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        explorer.value.value = 0.5
        explorer.run.value = "broken"
        await asyncio.sleep(0.3)

    asyncio.run(moved())
    assert not failures
    assert "rrn-error" in explorer.summary.value and explorer.curves.value == widget.BLANK


def test_a_split_that_cannot_be_shown_leaves_the_others(tmp_path):
    path = evidences.write(tmp_path / "evidence.zip")
    emptied = tmp_path / "emptied.zip"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(emptied, "w") as target:
        for name in source.namelist():
            about = json.loads(source.read(name)) if name == "evidence.json" else None
            if about:
                about["images"]["unlabeled"] = []
            target.writestr(name, json.dumps(about) if about else source.read(name))
    explorer = Explorer({"emptied": emptied})
    before = shown(explorer)
    explorer.split.value = "unlabeled"
    assert "shows no image of unlabeled: set log.evidence" in explorer.summary.value
    explorer.split.value = "val"
    assert shown(explorer) == before


def test_the_score_that_decides_is_shown_until_another_is_chosen(explorer):
    explorer.rule.value = "confidence"
    assert explorer.score.value == "confidence"
    explorer.score.value = "certainty"
    explorer.value.value = 0.5
    assert explorer.score.value == "certainty"
    explorer.rule.value = "none"
    assert explorer.score.value == "certainty"


def test_number_and_id_go_together(explorer):
    explorer.index.value = 3
    assert explorer.id.value == explorer.id.options[2]
    explorer.id.value = explorer.id.options[1]
    assert explorer.index.value == 2


def test_another_order_shows_its_first_image_and_a_rule_that_changes_keeps_the_image(explorer):
    explorer.order.value = "most disagreement"
    assert explorer.index.value == 1 and explorer.id.value == explorer.id.options[0]
    before = explorer.id.options
    explorer.order.value = "most wrong kept"
    chosen = explorer.id.value
    explorer.rule.value = "agreement"
    explorer.value.value = 0.2
    assert explorer.id.value == chosen
    assert sorted(explorer.id.options) == sorted(before)
    assert explorer.id.options[explorer.index.value - 1] == chosen


def test_a_run_without_discriminators_does_not_offer_them(explorer):
    explorer.run.value = "blind"
    offered = [[value for _, value in control.options] for control in (explorer.rule, explorer.score)]
    free = ["confidence", "probability", "certainty", "agreement"]
    assert offered == [["none", *free], free]
    assert explorer.rho.options == ("none", "agreement", "divergence", "probability")
    assert explorer.rule.value == "none" and explorer.value.disabled
    explorer.run.value = "results/<i>judged</i>"
    assert explorer.rule.value == "region_score" and not explorer.value.disabled


@pytest.mark.parametrize(
    ("name", "message"),
    [("broken", "is not what the evaluate stage writes"), ("gone", "there is no "), ("torn", "are damaged")],
)
def test_a_broken_file_is_said_in_words_and_the_next_run_works(explorer, name, message):
    before = explorer.image.value
    explorer.run.value = name
    if name == "torn":
        assert explorer.image.value == before
        explorer.id.value = "val_1"
    assert message in explorer.summary.value and "rrn-error" in explorer.summary.value
    assert explorer.image.value == widget.BLANK and explorer.table.value == ""
    explorer.value.value = 0.4
    assert explorer.image.value == widget.BLANK
    explorer.run.value = "results/<i>judged</i>"
    assert "rrn-error" not in explorer.summary.value and explorer.image.value != widget.BLANK


def test_names_cannot_act_as_html(tmp_path):
    path = evidences.write(tmp_path / "evidence.zip")
    explorer = Explorer({"<script>": tmp_path / "<script>x" / "evidence.zip", "right": path})
    assert "&lt;script&gt;x" in explorer.summary.value and "<script>x" not in explorer.summary.value
    regions = Regions(Evidence.read(path), "val")
    assert regions.about.classes[1] == "<b>disc</b>"
    table = widget.analysis.image_regions(regions, widget.analysis.default(regions)).assign(score="<b>x</b>")
    assert "&lt;b&gt;x&lt;/b&gt;" in widget.table_html(table)


def test_it_starts_without_torch():
    program = "import sys, rrn.explorer.widget; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.fixture
def copy(tmp_path):
    """What the notebook needs, without evidence."""
    for name in ("params.yaml", "dvc.yaml", "notebooks/explore_pseudo_labels.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("judged", [True, False])
def test_the_notebook_shows_pictures_and_tables_without_a_browser(copy, judged, monkeypatch):
    evidences.write(copy / "results" / "x" / "evidence.zip", judged=judged)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(copy)
    command = [sys.executable, "-m", "rrn.stage", "notebooks/explore_pseudo_labels.ipynb", "out.ipynb"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    text = (copy / "out.ipynb").read_text()
    outputs = [output for cell in json.loads(text)["cells"] for output in cell.get("outputs", [])]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") == 4 and kinds.count("text/html") == 2
    assert "widget-view" not in text and str(copy) not in text


def test_the_notebook_says_what_makes_evidence(copy, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(copy)
    notebook = "notebooks/explore_pseudo_labels.ipynb"
    command = [sys.executable, "-m", "rrn.stage", notebook, "out.ipynb"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "run `make repro`, or `git checkout HEAD -- results`" in result.stderr
    assert list(inspect_notebook(copy / notebook)) == ["evidence"]
