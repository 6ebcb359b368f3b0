"""Figures: drawn from data alone, of the right size, the same bytes every time."""

from __future__ import annotations

import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from rrn import config, drawing, figures

CLASSES = ("background", "brick", "grass", "water")
METHODS = ("supervised", "cps_cutmix", "rrn")


def make_history(seeds: int = 2) -> pd.DataFrame:
    rows = []
    for place, method in enumerate(METHODS):
        for seed in range(seeds):
            for step in (25, 50, 75, 100):
                row = {"method": method, "seed": seed, "step": step, "supervised": 100 / step + seed}
                if method != "supervised":
                    row |= {"consistency": 1.0, "coverage": 0.5, "weight": 0.4, "agreement": 0.9}
                if step % 50 == 0:
                    row |= dict.fromkeys(("miou_1", "miou_2", "miou_mean"), step + place + seed)
                rows.append(row)
    return pd.DataFrame(rows)


def make_reliability() -> pd.DataFrame:
    values = {"auroc": 0.7, "coverage": 0.5, "accuracy": 0.8, "accuracy_kept": 0.9}
    return pd.DataFrame(
        [
            {"step": step, "split": split, "segmenter": k, "score": score, **values}
            for step in (100, 200)
            for split in ("val", "unlabeled")
            for k in (1, 2)
            for score in ("region_score", "confidence", "agreement")
        ]
    )


def make_classes() -> pd.DataFrame:
    rows = [
        {"method": method, "class": name, "iou_mean": 10.0 * place, "partition": "1of16"}
        for method in METHODS
        for place, name in enumerate(CLASSES)
    ]
    return pd.DataFrame(rows)


def make_images(count: int = 3, height: int = 16, width: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    labels = rng.integers(0, 4, (count, height // 8, width // 8)).repeat(8, 1).repeat(8, 2)
    labels[0, :4] = 255
    return images, labels.astype(np.int64)


def make_evidence(scored: bool) -> dict[str, np.ndarray]:
    images, labels = make_images(2)
    maps = np.where(labels == 255, 0, labels).astype(np.uint8)
    scores = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 2, 2, 3)
    return {
        "ids": np.array(["a", "b"]),
        "images": images,
        "labels": labels.astype(np.uint8),
        "pseudo_labels": np.stack([maps, maps]),
        "prediction": maps,
        "region_scores": scores if scored else np.full_like(scores, np.nan),
        "kept": scores > 0.4,
        "region": np.array(8),
        "colours": np.zeros((0, 3), np.uint8),
    }


def draw(name: str) -> Figure:
    images, labels = make_images()
    mask = np.zeros((3, 1, 16, 24), bool)
    frequencies = {"class": CLASSES, "labeled": [4, 3, 2, 1], "unlabeled": [5, 3, 2, 2], "val": [10, 10, 10, 10]}
    evidence = {"supervised": make_evidence(False), "rrn": make_evidence(True)}
    return {
        "learning_curves": lambda: figures.learning_curves(make_history()),
        "loss_curves": lambda: figures.loss_curves(make_history(1).query("method == 'rrn'")),
        "reliability_curves": lambda: figures.reliability_curves(make_reliability()),
        "class_frequencies": lambda: figures.class_frequencies(pd.DataFrame(frequencies)),
        "per_class": lambda: figures.per_class(make_classes()),
        "samples": lambda: figures.samples(images, labels, CLASSES),
        "batch": lambda: figures.batch(images, labels, (images, images), mask, CLASSES),
        "qualitative": lambda: figures.qualitative(evidence, CLASSES),
    }[name]()


NAMES = [name for name in figures.__all__ if name.islower() and name != "save"]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_has_the_width_of_a_paper_and_leaves_no_trace(name):
    before = plt.get_fignums(), plt.rcParams["font.size"]
    fig = draw(name)
    assert fig.get_figwidth() in (pytest.approx(3.5), pytest.approx(7.2))
    assert 1.5 <= fig.get_figheight() <= 9
    assert (plt.get_fignums(), plt.rcParams["font.size"]) == before
    assert fig.legends or any(axis.get_legend() for axis in fig.axes)


@pytest.mark.parametrize("name", ["learning_curves", "qualitative"])
def test_files_are_the_same_bytes_on_a_rerun_without_a_date(name, tmp_path):
    files = [figures.save(draw(name), tmp_path / folder / "1.5_x") for folder in ("one", "two")]
    for first, second in zip(*files, strict=True):
        assert first.name in ("1.5_x.png", "1.5_x.pdf")
        assert first.read_bytes() == second.read_bytes()
    png, pdf = files[0]
    with Image.open(png) as image:
        assert image.width == 1440 and set(image.info) == {"dpi"}
    text = pdf.read_bytes()
    assert b"CreationDate" not in text
    assert b"/FontFile2" in text and b"/Type3" not in text


def test_a_notebook_gets_a_picture():
    assert draw("class_frequencies")._repr_png_().startswith(b"\x89PNG")


def test_every_row_of_the_settings_has_its_own_style_and_others_a_stable_one(root):
    rows = set(config.load(root=root).methods)
    for preset in (root / "presets").glob("*.yaml"):
        rows |= set(config.read(preset).get("methods", {}))
    styles = [drawing.method_style(method) for method in rows]
    assert len({colour for colour, _ in styles}) == len({label for _, label in styles}) == len(rows)
    assert drawing.method_style("my_row") == drawing.method_style("my_row")
    assert drawing.method_style("my_row")[1] == "my row"
    assert drawing.method_style("my_row")[0] not in {colour for colour, _ in styles}


def test_a_method_keeps_its_colour_whatever_stands_beside_it():
    for methods in (["rrn"], ["cps_cutmix", "rrn"]):
        history = make_history().query(f"method in {methods}")
        lines = figures.learning_curves(history).axes[0].lines
        assert to_hex(lines[methods.index("rrn")].get_color()) == "#ee6677"


def test_curves_and_bands_show_the_data():
    axis = figures.learning_curves(make_history()).axes[0]
    assert axis.lines[0].get_xydata().tolist() == [[50, 50.5], [100, 100.5]]
    assert len(axis.collections) == 3
    alone = figures.learning_curves(make_history(seeds=1)).axes[0]
    edges = [p.vertices for band in alone.collections for p in band.get_paths()]
    assert not edges  # one seed: no deviation


def test_class_colours_are_distinct_and_void_is_white():
    for count in (8, 21, 60):
        colours = drawing.palette(count)
        assert len({tuple(colour) for colour in colours[: count + 1]}) == count + 1
        assert (colours[255] == 255).all() and colours.dtype == np.uint8
    assert tuple(drawing.palette(2)[1]) == tuple(round(255 * v) for v in to_rgb("#4477AA"))


def test_pictures_may_have_channels_first_or_last():
    images, labels = make_images()
    first = figures.samples(images.transpose(0, 3, 1, 2), labels, CLASSES)
    assert np.array_equal(first.axes[0].images[0].get_array(), images[0])
    assert [text.get_text() for text in first.legends[0].texts] == [*CLASSES, "void"]
    second = figures.samples(images[1:], labels[1:], CLASSES)
    assert [text.get_text() for text in second.legends[0].texts] == list(CLASSES)


def test_a_batch_shows_the_mix_and_does_without_unlabeled_images():
    images, labels = make_images()
    mask = np.zeros((3, 1, 16, 24), bool)
    mask[0, 0, :8] = True
    fig = figures.batch(images, labels, (images, 255 - images), mask, CLASSES)
    shown = [axis.images[0].get_array() for axis in fig.axes if axis.images]
    assert len(shown) == 15
    assert np.array_equal(shown[12][:8], 255 - images[0, :8])
    assert np.array_equal(shown[12][8:], images[0, 8:])
    none = images[:0]
    alone = figures.batch(images, labels, (none, none), mask[:0], CLASSES)
    assert len([axis for axis in alone.axes if axis.images]) == 6


@pytest.mark.parametrize(
    ("methods", "focus", "title"),
    [
        (["cps_cutmix", "local_filter", "rrn"], "rrn", "RRN"),
        (["cps_cutmix", "random_filter", "local_filter"], "local_filter", "local filter"),
        (["random_filter", "cps_cutmix"], "random_filter", "random filter"),
        (["supervised", "random_filter"], "supervised", "supervised"),
    ],
)
def test_qualitative_names_the_method_whose_pseudo_labels_it_shows(methods, focus, title):
    evidence = {method: make_evidence(scored=method.endswith(("filter", "rrn"))) for method in methods}
    for place, (method, arrays) in enumerate(evidence.items()):
        arrays["pseudo_labels"] = np.full_like(arrays["pseudo_labels"], place)
        if method == "random_filter":
            arrays["kept"] = np.ones_like(arrays["kept"])
    fig = figures.qualitative(evidence, CLASSES)
    assert fig.get_suptitle() == f"pseudo-labels of: {title}"
    shown = fig.axes[2].images[0].get_array()
    assert (shown == drawing.palette(len(CLASSES))[methods.index(focus)]).all()


def test_qualitative_shows_scores_only_where_there_are_some():
    titles = {
        scored: [
            re.sub(r"\n", " ", axis.get_title())
            for axis in figures.qualitative({"rrn": make_evidence(scored)}, CLASSES).axes[:7]
        ]
        for scored in (True, False)
    }
    assert titles[True][4:] == ["region score 1", "kept of 1", "RRN"]
    assert titles[False][4:6] == ["kept of 1", "RRN"]
    fig = figures.qualitative({"rrn": make_evidence(True)}, CLASSES)
    kept = fig.axes[5].images[0].get_array()
    assert (kept[:8, :8] == 255).all()  # score 0, dropped


def test_titles_of_many_methods_do_not_overlap():
    evidence = {method: make_evidence(True) for method in list(figures.METHOD_STYLE)[4:14]}
    fig = figures.qualitative(evidence, CLASSES)
    fig.draw_without_rendering()
    boxes = sorted((axis.title.get_window_extent() for axis in fig.axes[:16]), key=lambda box: box.x0)
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))
