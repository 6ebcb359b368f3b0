"""The figures of the paper: of the right size, whole, readable in gray, the same bytes always."""

from __future__ import annotations

import inspect
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from studies import make_full_history

from rrn.config import Filter
from rrn.data.palette import palette
from rrn.paper import comparisons, reliability_plots
from rrn.plotting import qualitative, style
from rrn.plotting.style import METHOD_STYLE, SCORE_STYLE
from rrn.reliability.curves import RunCurves, run_curves
from rrn.reliability.evidence import About, Evidence, EvidenceWriter, Pictures

HALF_RULE = {"by": "region_score", "keep": "fraction", "tau": 0.6, "fraction": 0.5, "start": 0}
NO_RULE = HALF_RULE | {"by": "none"}
CLASSES = ("background", "brick", "grass", "water")
METHODS = ("supervised", "cps_cutmix", "local_filter", "rrn")
RULE = {"by": "region_score", "keep": "fraction", "tau": 0.6, "fraction": 0.75, "start": 0}


# ---- what is drawn


def make_regions(seeds: int = 2, scored: bool = True) -> pd.DataFrame:
    """Region tables of two regions of 10 pixels: the better one has 10 right, the other 5 and one more by seed."""
    rows = []
    for seed in range(seeds):
        for segmenter in (1, 2):
            for score, right in ((0.9, 10), (0.45, 5 + seed)):
                row = {"seed": seed, "segmenter": segmenter, "pixels": 10, "right": right}
                row |= dict.fromkeys(("confidence", "certainty", "agreement"), score)
                rows.append(row | dict.fromkeys(("region_score", "product"), score if scored else np.nan))
    return pd.DataFrame(rows)


def make_curves(seeds: int = 2, scored: bool = True) -> list[RunCurves]:
    """Curves of these regions, by seed; the rule keeps the better half."""
    parts = make_regions(seeds, scored).groupby("seed")
    return [run_curves(part, Filter(**HALF_RULE if scored else NO_RULE)) for _, part in parts]


DRAWN = [score for score in SCORE_STYLE if score in make_regions()]
"""Scores of these tables."""


def make_classes(seeds: int = 2) -> pd.DataFrame:
    rows = [
        {"name": "x", "partition": "1of16", "method": m, "seed": s, "class": c, "iou_mean": 50.0 + place * (1 + s) + s}
        for place, m in enumerate(("cps_cutmix", "rrn", "local_filter"))
        for s in range(seeds)
        for c in CLASSES
    ]
    return pd.DataFrame(rows)


def make_variants(**settings: tuple[object, ...]) -> pd.DataFrame:
    count = len(next(iter(settings.values())))
    names = list(style.SWEEP_ROWS)[:count]
    rows = [{"method": "cps_cutmix", "miou_mean": 58.0, "miou_std": 1.0, "coverage": 1.0, "filter.by": "none"}]
    for place, name in enumerate(names):
        row = {"method": name, "miou_mean": 57.0 + place, "miou_std": 0.5, "coverage": 0.9, "filter.by": "region_score"}
        rows.append(row | {key.replace("__", "."): values[place] for key, values in settings.items()})
    return pd.DataFrame(rows)


def make_runs() -> pd.DataFrame:
    rows = [
        {"partition": partition, "method": method, "seed": seed, "miou_mean": 50.0 + place + 2 * seed}
        for place, partition in enumerate(("1of4", "1of16", "all"))
        for method in ("cps_cutmix", "rrn")
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def make_pictures(right: float, value: int = 0) -> Pictures:
    """A picture of 16 x 24 pixels; of the valid ones a share is predicted right; pseudo-labels have one class."""
    rng = np.random.default_rng(3)
    label = np.ones((16, 24), np.uint8)
    label[:4] = 255
    prediction = np.where(np.arange(16)[:, None] < 4 + 12 * right, 1, 2).astype(np.uint8).repeat(24, 1).reshape(16, 24)
    image = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    return Pictures(image, label, np.full((2, 16, 24), value, np.uint8), prediction)


def make_evidence(
    folder: Path, method: str, rights: dict[str, float], rule: dict[str, object] | None = None, value: int = 0
) -> Evidence:
    """Evidence of images by id, a share of each predicted right; region r of an image scores r / 6."""
    rule = rule or (RULE if method in ("rrn", "local_filter") else {**RULE, "by": "none"})
    scored = rule["by"] != "none"
    about = About(
        **{"name": "x", "partition": "1of16", "method": method, "seed": 0, "classes": CLASSES, "colours": ()},
        **{"region": 8, "rule": rule, "rho": "none", "objective": "accuracy" if scored else None},
        images={"test": tuple(rights)},
    )
    places = [(row, column) for row in range(2) for column in range(3)]
    rows = [
        {"id": name, "segmenter": k, "row": row, "column": column}
        | dict.fromkeys(("region_score", "other_score", "product"), (3 * row + column) / 6 if scored else np.nan)
        | {"confidence": 1 - (3 * row + column) / 6, "certainty": 0.5, "agreement": 1.0, "divergence": 0.0}
        | {"pixels": 64, "right": 32}
        for name in rights
        for k in (1, 2)
        for row, column in places
    ]
    path = folder / f"{method}.zip"
    with EvidenceWriter(path, about) as writer:
        writer.add("test", pd.DataFrame(rows), {name: make_pictures(right, value) for name, right in rights.items()})
    return Evidence.read(path)


def make_evidences(folder: Path) -> dict[str, Evidence]:
    shares = {"supervised": 0.25, "cps_cutmix": 0.5, "rrn": 1.0}
    return {m: make_evidence(folder, m, {"a": 0.5, "b": share, "c": 0.75}) for m, share in shares.items()}


QUOTED = pd.DataFrame(
    {
        **{"partition": ["1of16", "1of16", "1of2"], "method": "Other", "epoch": ["unknown", "best", "unknown"]},
        "miou": [60.0, 61.0, 70.0],
    }
)


def draw(name: str, folder: Path) -> Figure:
    return {
        "plot_training_curves": lambda: comparisons.plot_training_curves(make_full_history(methods=METHODS)),
        "plot_risk_coverage": lambda: reliability_plots.plot_risk_coverage(make_curves()),
        "reliability_diagram": lambda: reliability_plots.reliability_diagram(make_curves()),
        "qualitative": lambda: qualitative.qualitative(make_evidences(folder), count=2),
        "per_class_gain": lambda: comparisons.per_class_gain(make_classes()),
        "sweep": lambda: comparisons.sweep(make_variants(grid=("2", "4", "8"))),
        "sweep of several": lambda: comparisons.sweep(
            make_variants(filter__tau=("0.6", ""), filter__fraction=("", "0.9"))
        ),
        "plot_partitions": lambda: comparisons.plot_partitions(make_runs(), QUOTED),
    }[name]()


FIGURES = [
    *("plot_training_curves", "plot_risk_coverage", "reliability_diagram", "qualitative", "per_class_gain"),
    *("sweep", "sweep of several", "plot_partitions"),
]


def save_all(folder: Path) -> None:
    """Draw and save every figure; another process calls it too."""
    for name in FIGURES:
        style.save(draw(name, folder), folder / name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    save_all(folder)
    return folder


# ---- what every figure promises


def test_every_figure_of_the_room_is_tried():
    functions = {
        name
        for module in (comparisons, reliability_plots)
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if value.__module__ == module.__name__ and value.__annotations__["return"] == "Figure" and name[0] != "_"
    }
    assert functions | {"qualitative"} == {name.split()[0] for name in FIGURES}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_the_width_of_a_paper_and_leaves_no_trace(name, tmp_path):
    before = plt.get_fignums(), plt.rcParams["font.size"]
    fig = draw(name, tmp_path)
    assert fig.get_figwidth() in (style.COLUMN, style.PAGE)
    assert 1.2 <= fig.get_figheight() <= 9
    assert (plt.get_fignums(), plt.rcParams["font.size"]) == before


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_off(name, tmp_path):
    fig = draw(name, tmp_path)
    fig.draw_without_rendering()
    texts = [*fig.texts, *(text for legend in fig.legends for text in legend.texts)]
    for axis in fig.axes:
        texts += [axis.title, axis.xaxis.label, axis.yaxis.label, *axis.texts]
        texts += axis.get_legend().texts if axis.get_legend() else []
    for text in texts:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert box.x0 >= -1 and box.y0 >= -1, text
            assert box.x1 <= fig.bbox.x1 + 1 and box.y1 <= fig.bbox.y1 + 1, text


@pytest.mark.parametrize("name", FIGURES)
def test_files_have_no_date_and_one_embedded_family_of_fonts(name, saved):
    with Image.open(saved / f"{name}.png") as image:
        assert image.width in (700, 1440) and set(image.info) == {"dpi"}
    text = (saved / f"{name}.pdf").read_bytes()
    assert b"CreationDate" not in text and b"ModDate" not in text
    assert b"/FontFile2" in text and b"/Type3" not in text
    families = set(re.findall(rb"/BaseFont /(?:[A-Z]{6}\+)?(\w+)", text))
    assert families and all(family.startswith(b"DejaVuSans") for family in families), families


def test_files_are_the_same_bytes_in_another_process(saved, tmp_path):
    code = "import sys, pathlib, test_comparisons; test_comparisons.save_all(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    for name in FIGURES:
        for kind in ("png", "pdf"):
            first, second = ((folder / f"{name}.{kind}").read_bytes() for folder in (saved, tmp_path))
            assert first == second, f"{name}.{kind}"


def test_the_paper_needs_no_torch_and_what_trains_does_not_need_the_paper():
    code = (
        "import sys, rrn.plotting.figures; print('rrn.paper.comparisons' in sys.modules)\n"
        "import rrn.paper.comparisons; print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["False", "False"]
    for notebook in ("1_prepare", "2_warmup", "3_train", "4_evaluate"):
        source = (ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8")
        assert not re.search(r"\b(rrn\.paper|comparisons|reliability_plots)\b", source), notebook


# ---- training curves


def test_a_method_keeps_its_color_dash_and_marker_whatever_stands_beside_it():
    for methods in (("rrn",), ("cps_cutmix", "rrn")):
        line = comparisons.plot_training_curves(make_full_history(methods=methods)).axes[0].lines[methods.index("rrn")]
        assert (to_hex(line.get_color()), line.get_marker()) == ("#ee6677", "o")
    dashes = [
        line._dash_pattern
        for line in comparisons.plot_training_curves(make_full_history(methods=METHODS)).axes[0].lines
    ]
    assert dashes == [Line2D([], [], lw=1.2, ls=METHOD_STYLE[method].dash)._dash_pattern for method in METHODS]
    assert len({str(dash) for dash in dashes}) == 3  # rrn and cps_cutmix are solid, and differ in the marker


def test_curves_and_bands_show_the_data():
    axis = comparisons.plot_training_curves(make_full_history(methods=METHODS)).axes[0]
    assert axis.lines[1].get_xydata().tolist() == [[50, 51.5], [100, 101.5]]
    assert len(axis.collections) == len(METHODS)
    top = axis.collections[1].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(101.5 + np.std([0, 1], ddof=1))
    assert not comparisons.plot_training_curves(make_full_history(seeds=1)).axes[0].collections  # no deviation


def test_what_no_method_has_is_no_panel_and_who_has_nothing_no_line():
    titles = [
        axis.get_ylabel() for axis in comparisons.plot_training_curves(make_full_history(methods=("supervised",))).axes
    ]
    assert [title for title in titles if title] == ["val mIoU (%)", "supervised loss"]
    fig = comparisons.plot_training_curves(make_full_history(methods=METHODS))
    kept = next(axis for axis in fig.axes if axis.get_ylabel() == "regions kept")
    assert len(kept.lines) == len(METHODS) - 1


# ---- what scores are worth


def line_of(axis, score):
    look = SCORE_STYLE[score]
    return next(line for line in axis.lines if line.get_color() == look.color)


def test_risk_grows_with_coverage_as_counted_by_hand():
    axis = reliability_plots.plot_risk_coverage(make_curves()).axes[0]
    coverage, risk = line_of(axis, "region_score").get_data()
    values = dict(zip(np.round(coverage).astype(int), risk, strict=True))
    assert values[50] == pytest.approx(0)
    assert values[100] == pytest.approx((25 + 20) / 2)  # 5 or 4 of 20 pixels are wrong
    assert values[75] == pytest.approx((2.5 + 2.0) / 2 / 15 * 100)  # half of the wrong ones, of 15 pixels
    lines = {line.get_linestyle(): line for line in axis.lines[-2:]}
    assert lines["--"].get_xdata()[0] == 50
    assert lines[":"].get_ydata()[0] == pytest.approx(100 * 9 / 40)


def test_scores_that_a_row_lacks_are_not_drawn_and_one_seed_has_no_band():
    fig = reliability_plots.plot_risk_coverage(make_curves(seeds=1, scored=False))
    names = [text.get_text() for text in fig.legends[0].texts]
    assert names == ["confidence", "certainty", "agreement", "everything kept", "kept by the row"]
    assert not fig.axes[0].collections
    assert len(reliability_plots.plot_risk_coverage(make_curves()).axes[0].collections) == len(DRAWN)
    assert len(reliability_plots.reliability_diagram(make_curves(scored=False)).axes) == 6


def test_a_reliability_diagram_shows_accuracy_by_bin_and_the_calibration_error():
    fig = reliability_plots.reliability_diagram(make_curves())
    upper, lower = fig.axes[0], fig.axes[len(DRAWN)]
    middles, accuracy = line_of(upper, "region_score").get_data()
    held = np.isfinite(accuracy)
    assert middles[held] == pytest.approx([6.5 / 15, 13.5 / 15])
    assert accuracy[held] == pytest.approx([0.55, 1.0])
    errors = [(abs(0.45 - 0.5) + 0.1) / 2, (abs(0.45 - 0.6) + 0.1) / 2]
    text = f"ECE {np.mean(errors):.3f} ± {np.std(errors, ddof=1):.3f}"
    assert [entry.get_text() for entry in upper.get_legend().texts] == [text]
    heights = np.array([bar.get_height() for bar in lower.patches])
    assert heights[[6, 13]] == pytest.approx([50, 50]) and heights.sum() == pytest.approx(100)
    alone = reliability_plots.reliability_diagram(make_curves(seeds=1)).axes[0].get_legend()
    assert alone.texts[0].get_text() == "ECE 0.075"


# ---- gains


def test_gains_are_paired_over_seeds_and_end_with_the_mean_of_the_classes():
    fig = comparisons.per_class_gain(make_classes())
    axis = fig.axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == [*CLASSES, "mean"]
    first = axis.containers[0]
    assert first.lines[0].get_ydata().tolist() == [1.5] * 5  # 1 and 2 with seeds 0 and 1
    segment = first.lines[2][0].get_segments()[0]
    assert segment[:, 1] == pytest.approx([1.5 - 0.5**0.5, 1.5 + 0.5**0.5])
    assert [text.get_text() for text in fig.legends[0].texts] == ["RRN", "local filter"]


def test_gains_need_the_reference_and_somebody_else():
    for kept in ("cps_cutmix", "rrn"):
        with pytest.raises(ValueError, match=f"no method to compare with cps_cutmix, the table has {kept}; list"):
            comparisons.per_class_gain(make_classes().query("method == @kept"))


# ---- sweeps


def test_one_setting_by_numbers_is_a_curve_in_its_order():
    fig = comparisons.sweep(make_variants(grid=("16", "2", "4")))
    axis = fig.axes[0]
    curve = axis.containers[0].lines[0]
    assert curve.get_xydata().tolist() == [[2, 58], [4, 59], [16, 57]]
    assert axis.get_xlabel() == "regions per side of a crop"
    reference = next(line for line in axis.lines if line.get_color() == METHOD_STYLE["cps_cutmix"].color)
    assert reference.get_ydata()[0] == 58
    band = axis.patches[0].get_extents().transformed(axis.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((57, 59))
    assert [text.get_text() for text in fig.legends[0].texts] == ["variants", "CPS + CutMix"]


@pytest.mark.parametrize(
    "settings",
    [
        {"filter__tau": ("0.6", ""), "filter__fraction": ("", "0.9"), "filter__keep": ("threshold", "fraction")},
        {"discriminator__objective": ("accuracy", "adversarial")},
        {"filter__tau": ("0.6", "")},
    ],
)
def test_several_settings_or_words_are_a_line_each(settings):
    fig = comparisons.sweep(make_variants(**settings))
    axis = fig.axes[0]
    assert len(fig.axes) == 1  # all keep the same
    assert [text.get_text() for text in axis.get_yticklabels()] == list(style.SWEEP_ROWS.values())[:2]
    assert [container.lines[0].get_xydata().tolist() for container in axis.containers] == [[[57, 0]], [[58, 1]]]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first above


def test_how_much_is_kept_is_the_axis_where_only_what_decides_it_varies():
    table = make_variants(
        filter__tau=("", "", "0.6", "0.9"),
        filter__fraction=("0.9", "0.5", "", ""),
        filter__keep=("fraction", "fraction", "threshold", "threshold"),
    )
    table["coverage"] = [1.0, 0.9, 0.5, 0.95, 0.4]
    fig = comparisons.sweep(table)
    curves = [container.lines[0].get_xydata().tolist() for container in fig.axes[0].containers]
    assert curves == [[[50, 58], [90, 57]], [[40, 60], [95, 59]]]
    assert [text.get_text() for text in fig.legends[0].texts] == ["best share", "threshold", "CPS + CutMix"]
    assert fig.get_figwidth() == style.COLUMN


def test_a_sweep_shows_what_its_variants_keep_where_that_varies():
    table = make_variants(filter__keep=("threshold", "fraction"))
    table["coverage"] = [1.0, 0.5, 0.75]
    fig = comparisons.sweep(table)
    assert [bar.get_width() for bar in fig.axes[1].patches] == [50, 75]
    assert fig.get_figwidth() == style.PAGE


def test_a_sweep_without_the_reference_or_without_deviations_is_drawn_too():
    table = make_variants(grid=("2", "4")).query("method != 'cps_cutmix'").assign(miou_std=np.nan)
    fig = comparisons.sweep(table)
    assert [text.get_text() for text in fig.legends[0].texts] == ["variants"]
    assert not comparisons.sweep(table.assign(grid=["few", "many"])).legends


# ---- partitions


def test_partitions_are_in_the_order_of_their_size_and_quoted_numbers_say_so():
    fig = comparisons.plot_partitions(make_runs(), QUOTED)
    axis = fig.axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1/16", "1/4", "all"]
    assert axis.containers[0].lines[0].get_ydata().tolist() == [52, 51, 53]
    names = [text.get_text() for text in fig.legends[0].texts]
    assert names == ["CPS + CutMix", "RRN", "Other (quoted)", "Other (quoted, best epoch)"]
    marks = [line for line in axis.lines if line.get_markerfacecolor() == "white"]
    assert [mark.get_ydata().tolist() for mark in marks] == [[60], [61]]
    assert [round(mark.get_xdata()[0]) for mark in marks] == [0, 0]
    assert marks[0].get_marker() != marks[1].get_marker()


def test_without_quoted_numbers_there_is_no_hollow_marker():
    for quoted in (None, QUOTED.iloc[:0]):
        fig = comparisons.plot_partitions(make_runs(), quoted)
        assert [text.get_text() for text in fig.legends[0].texts] == ["CPS + CutMix", "RRN"]


def test_numbers_of_images_come_before_shares():
    runs = make_runs().assign(partition=lambda table: table["partition"].replace({"1of4": "183", "all": "92"}))
    labels = [text.get_text() for text in comparisons.plot_partitions(runs).axes[0].get_xticklabels()]
    assert labels == ["92", "183", "1/16"]


# ---- qualitative


def test_images_are_chosen_where_methods_differ_most_ties_by_id(tmp_path):
    first = make_evidence(tmp_path, "cps_cutmix", {"d": 0.5, "a": 0.25, "b": 0.5, "c": 1.0, "only": 0.0})
    second = make_evidence(tmp_path, "rrn", {"c": 0.75, "a": 0.5, "b": 1.0, "d": 0.5})
    evidences = {"cps_cutmix": first, "rrn": second}
    assert qualitative.most_different(evidences) == ["b", "a", "c", "d"]  # deviations 1/4, 1/8, 1/8, 0
    assert qualitative.most_different(evidences, count=2) == ["b", "a"]
    with pytest.MonkeyPatch.context() as patch:  # alone it differs from nothing, and no picture is opened
        patch.setattr(Evidence, "pictures", None)
        assert qualitative.most_different({"cps_cutmix": first}, count=2) == ["a", "b"]


def test_neighbors_of_a_chosen_image_are_passed_over(tmp_path):
    names = [f"frame_{place:02d}" for place in range(12)]
    first = make_evidence(tmp_path, "cps_cutmix", dict.fromkeys(names, 0.0))
    gains = dict.fromkeys(names, 0.0) | {"frame_05": 1.0, "frame_06": 0.75, "frame_07": 0.5, "frame_04": 0.25}
    evidences = {"cps_cutmix": first, "rrn": make_evidence(tmp_path, "rrn", gains)}
    assert qualitative.most_different(evidences, count=3) == [
        "frame_05",
        "frame_07",
        "frame_00",
    ]  # 2 apart: 12 / (2 * 3)
    assert qualitative.most_different(evidences, count=1) == ["frame_05"]


@pytest.mark.parametrize("count", [1, 2, 4, 7])
@pytest.mark.parametrize("images", [1, 3, 8, 9, 17])
def test_as_many_images_are_shown_as_there_are(images, count, tmp_path):
    gains = {f"{place:02d}": (7 * place % images) / images for place in range(images)}
    first = make_evidence(tmp_path, "cps_cutmix", dict.fromkeys(gains, 0.0))
    evidences = {"cps_cutmix": first, "rrn": make_evidence(tmp_path, "rrn", gains)}
    assert len(qualitative.most_different(evidences, count=count)) == min(images, count)


def test_images_in_common_are_needed(tmp_path):
    evidences = {m: make_evidence(tmp_path, m, {m: 0.5}) for m in ("cps_cutmix", "rrn")}
    with pytest.raises(ValueError, match=r"cps_cutmix, rrn has no test image in common; run `dvc repro evaluate`"):
        qualitative.most_different(evidences)


@pytest.mark.parametrize(
    ("methods", "title"),
    [
        (["cps_cutmix", "local_filter", "rrn"], "RRN"),
        (["cps_cutmix", "random_filter", "local_filter"], "local filter"),
        (["random_filter", "cps_cutmix"], "random filter"),
    ],
)
def test_qualitative_names_the_method_whose_pseudo_labels_it_shows(methods, title, tmp_path):
    evidences = {m: make_evidence(tmp_path, m, {"a": 0.5}, value=place) for place, m in enumerate(methods)}
    fig = qualitative.qualitative(evidences)
    assert fig.get_suptitle() == f"pseudo-labels of: {title}, seed 0"
    focus = next(m for m in methods if METHOD_STYLE[m].label == title)
    shown = fig.axes[2].images[0].get_array()
    assert (shown == palette(len(CLASSES))[methods.index(focus)]).all()


def test_qualitative_shows_the_pseudo_labels_of_the_row_that_is_asked_for(tmp_path):
    evidences = {m: make_evidence(tmp_path, m, {"a": 0.5}) for m in ("cps_cutmix", "rrn", "local_filter")}
    assert (
        qualitative.qualitative(evidences, focus="local_filter").get_suptitle()
        == "pseudo-labels of: local filter, seed 0"
    )


def test_qualitative_drops_the_worst_regions_of_the_whole_split(tmp_path):
    evidence = make_evidence(tmp_path, "rrn", {"a": 0.5, "b": 0.5}, value=1)
    evidence.regions.loc[evidence.regions["id"] == "b", "region_score"] = 1.0
    fig = qualitative.qualitative({"rrn": evidence}, count=1)
    titles = [re.sub(r"\n", " ", axis.get_title()) for axis in fig.axes[:7]]
    assert titles[4:] == ["region score 1", "kept of 1", "RRN"]
    scores = fig.axes[4].images[0].get_array()
    assert scores[0, 0] == 0 and scores[15, 23] == pytest.approx(5 / 6)
    white = (fig.axes[5].images[0].get_array() == 255).all(axis=2)
    assert white[:8].all() and not white[8:].any()  # 9 of 12 are kept: all 6 of b, the best 3 of a
    without = qualitative.qualitative({"cps_cutmix": make_evidence(tmp_path, "cps_cutmix", {"a": 0.5})})
    assert "region score 1" not in [re.sub(r"\n", " ", axis.get_title()) for axis in without.axes]
    assert not (without.axes[4].images[0].get_array()[8:] == 255).all(axis=2).any()


def test_titles_of_many_methods_do_not_overlap(tmp_path):
    methods = [row for row in METHOD_STYLE if row not in style.SWEEP_ROWS][4:14]
    fig = qualitative.qualitative({m: make_evidence(tmp_path, m, {"a": 0.5}, RULE) for m in methods})
    fig.draw_without_rendering()
    boxes = sorted((axis.title.get_window_extent() for axis in fig.axes[:16]), key=lambda box: box.x0)
    assert len(boxes) == 16
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))
