"""Figures: drawn from data alone, of the right size, the same bytes every time."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from studies import METHODS, make_full_history

from rrn import config
from rrn.data.palette import palette
from rrn.paper import comparisons
from rrn.plotting import figures, style

CLASSES = ("background", "brick", "grass", "water")


def make_reliability() -> pd.DataFrame:
    values = {"aurc": 0.1, "ece": 0.05, "coverage": 0.5, "accuracy": 0.8, "accuracy_kept": 0.9, "accuracy_dropped": 0.4}
    return pd.DataFrame(
        [
            {"step": step, "split": split, "segmenter": k, "score": score, "class": name, **values, "auroc": auroc}
            for name, auroc in (("(all)", 0.7), ("brick", 0.1))
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


def draw(name: str) -> Figure:
    images, labels = make_images()
    frequencies = {"class": CLASSES, "labeled": [4, 3, 2, 1], "unlabeled": [5, 3, 2, 2], "val": [10, 10, 10, 10]}
    return {
        "loss_curves": lambda: figures.loss_curves(make_full_history(1).query("method == 'rrn'")),
        "reliability_curves": lambda: figures.reliability_curves(make_reliability()),
        "class_reliability": lambda: figures.class_reliability(make_reliability().query("split == 'val'")),
        "class_frequencies": lambda: figures.class_frequencies(pd.DataFrame(frequencies)),
        "plot_per_class": lambda: figures.plot_per_class(make_classes()),
        "samples": lambda: figures.samples(images, labels, CLASSES),
    }[name]()


ODD = ("<script>", "$a$ and $b^$", "50 %", "_hidden")


def test_names_of_classes_are_drawn_as_they_are():
    """Two dollars would begin a formula, and one that is none would end the stage."""
    images, labels = make_images()
    names = dict(zip(CLASSES, ODD, strict=True))
    renamed = [
        table.assign(**{"class": table["class"].replace(names)}) for table in (make_classes(), make_reliability())
    ]
    frequencies = pd.DataFrame({"class": ODD, "labeled": [4, 3, 2, 1]})
    drawn = [
        *(
            figures.samples(images, labels, ODD),
            figures.class_frequencies(frequencies),
            figures.plot_per_class(renamed[0]),
        ),
        *(figures.class_reliability(renamed[1].query("split == 'val'")),),
        comparisons.per_class_gain(renamed[0].assign(name="study", seed=0)),
    ]
    for fig in drawn:
        FigureCanvasAgg(fig).draw()
        shown = [text.get_text() for text in fig.findobj(Text)]
        found = {name for name in ODD if name.replace("$", r"\$") in shown}
        assert found >= ({ODD[1]} if fig is drawn[3] else set(ODD)), shown
        assert ODD[1] not in shown


def many(count):
    """Every figure of classes, of so many classes."""
    names = [f"class {place}" for place in range(count)]
    rows = [
        {"name": "study", "seed": 0, "partition": "1of16", "method": method, "class": name, "iou_mean": float(place)}
        for method in ("cps_cutmix", "rrn")
        for place, name in enumerate(names)
    ]
    scores = pd.DataFrame({"class": names, "split": "val", "step": 1, "score": "confidence", "auroc": 0.5})
    shares = pd.DataFrame({"class": names, "labeled": range(1, count + 1)})
    return names, {
        "per_class": figures.plot_per_class(pd.DataFrame(rows)),
        "per_class_gain": comparisons.per_class_gain(pd.DataFrame(rows)),
        "class_frequencies": figures.class_frequencies(shares),
        "class_reliability": figures.class_reliability(scores.assign(accuracy_kept=1.0, accuracy_dropped=0.0)),
    }


@pytest.mark.parametrize("count", [25, 26, 60])
def test_many_classes_stand_in_lines_whose_names_do_not_touch(count):
    names, drawn = many(count)
    for name, fig in drawn.items():
        FigureCanvasAgg(fig).draw()
        shown = [[text.get_text() for text in axis.get_xticklabels()] for axis in fig.axes]
        assert [word for line in shown for word in line if word not in ("", "mean")] == names, name
        for axis in fig.axes:
            places = [text.get_window_extent().x1 for text in axis.get_xticklabels()]
            assert all(np.diff(places) > 1.1 * fig.dpi * 9 / 72) or len(places) < 2, name  # more than a line of text
    values = [bar.get_height() for axis in drawn["per_class"].axes for bar in axis.containers[1]]
    assert values == list(range(count))


NAMES = [name for name in figures.__all__ if name.islower() and name != "save"]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_has_the_width_of_a_paper_and_leaves_no_trace(name):
    before = plt.get_fignums(), plt.rcParams["font.size"]
    fig = draw(name)
    assert fig.get_figwidth() in (pytest.approx(3.5), pytest.approx(7.2))
    assert 1.5 <= fig.get_figheight() <= 9
    assert (plt.get_fignums(), plt.rcParams["font.size"]) == before
    assert fig.legends or any(axis.get_legend() for axis in fig.axes)


@pytest.mark.parametrize("name", ["reliability_curves", "samples"])
def test_files_are_the_same_bytes_on_a_rerun_without_a_date(name, tmp_path):
    files = [figures.save(draw(name), tmp_path / folder / "1.5_x") for folder in ("one", "two")]
    for first, second in zip(*files, strict=True):
        assert first.name in ("1.5_x.png", "1.5_x.pdf")
        assert first.read_bytes() == second.read_bytes()
    png, pdf = files[0]
    with Image.open(png) as image:
        assert image.width == {"samples": 700}.get(name, 1440) and set(image.info) == {"dpi"}
    text = pdf.read_bytes()
    assert b"CreationDate" not in text
    assert b"/FontFile2" in text and b"/Type3" not in text


def test_a_notebook_gets_a_picture():
    assert draw("class_frequencies")._repr_png_().startswith(b"\x89PNG")


def rows_of_the_settings(root):
    """Return the rows that stand in one figure: of params.yaml, and of each preset with those beside them."""
    main = config.load(root=root).ablation.methods
    sets = {"params.yaml": set(main)}
    for preset in (root / "presets").glob("*.yaml"):
        ablation = config.read(preset).get("ablation", {})
        sets[preset.name] = {*ablation.get("methods", []), *(main if "shapes" in ablation.get("beside", []) else [])}
    return sets


def test_every_row_of_the_settings_has_its_own_style_and_others_a_stable_one(root):
    rows = set(config.load(root=root).methods)
    for preset in (root / "presets").glob("*.yaml"):
        rows |= set(config.read(preset).get("methods", {}))
    assert rows <= set(style.METHOD_STYLE)
    styles = list(style.METHOD_STYLE.values())
    assert len({look.label for look in styles}) == len(styles)
    assert len({(look.marker, look.dash) for look in styles}) == len(styles)
    own = [look.color for row, look in style.METHOD_STYLE.items() if row not in style.SWEEP_ROWS]
    assert len(set(own)) == len(own)
    assert not set(own) & set(style.OTHER_COLORS)
    assert style.method_style("my_row") == style.method_style("my_row")
    assert style.method_style("my_row").label == "my row"
    assert style.method_style("my_row").color in style.OTHER_COLORS


def test_rows_of_one_figure_have_colors_of_their_own_unless_it_is_a_sweep(root):
    for name, rows in rows_of_the_settings(root).items():
        looks = [style.METHOD_STYLE[row] for row in rows if row not in style.SWEEP_ROWS]
        assert len({look.color for look in looks}) == len(looks), name


def test_methods_and_scores_are_told_apart_without_color():
    for looks in (style.METHOD_STYLE, style.SCORE_STYLE):
        assert len({(look.marker, look.dash) for look in looks.values()}) == len(looks)
    assert len({look.hatch for look in style.SCORE_STYLE.values()}) == len(style.SCORE_STYLE)
    with plt.style.context(style.STYLE):
        cycle = list(itertools.islice(plt.rcParams["axes.prop_cycle"], 5))
    assert len({str(item["linestyle"]) for item in cycle}) == 5


def test_bars_of_different_methods_differ_without_color():
    fig = figures.plot_per_class(make_classes())
    hatches = [container[0].get_hatch() for container in fig.axes[0].containers]
    assert hatches == [style.METHOD_STYLE[method].hatch for method in METHODS]
    assert [handle.get_hatch() for handle in fig.legends[0].legend_handles] == hatches
    assert len(set(hatches)) == len(METHODS)
    axis = draw("class_frequencies").axes[0]
    bars = [container[0].get_hatch() for container in axis.containers]
    assert [handle.get_hatch() for handle in axis.get_legend().get_patches()] == bars == ["", "..", "//"]


def test_reliability_curves_show_every_score_that_the_run_has_and_all_classes_together():
    fig = figures.reliability_curves(make_reliability())
    lines = fig.axes[0].lines
    assert [line.get_ydata().tolist() for line in lines[:2]] == [[0.7, 0.7]] * 2
    assert len(lines) == 3
    assert [text.get_text() for text in fig.legends[0].texts] == [
        *("region score", "confidence", "agreement", "all regions")
    ]
    drawn = [axis.lines[0].get_ydata()[0] for axis in fig.axes]
    assert drawn == pytest.approx([0.7, 10, 5, 90] * 2)
    assert [len(axis.lines) for axis in fig.axes] == [3, 3, 3, 4] * 2  # of all regions: how many are right


def test_class_reliability_shows_the_last_step_by_class():
    table = make_reliability()
    table.loc[table["step"] == 100, "auroc"] = 0.0
    fig = figures.class_reliability(table[table["split"] == "val"])
    assert [text.get_text() for text in fig.axes[1].get_xticklabels()] == ["brick"]
    assert [line.get_ydata().tolist() for line in fig.axes[0].lines[:3]] == [[0.1]] * 3
    assert [line.get_ydata().tolist() for line in fig.axes[1].lines[:2]] == [[90], [40]]


def test_class_colors_are_distinct_and_void_is_white():
    for count in (8, 21, 60):
        colors = palette(count)
        assert len({tuple(color) for color in colors[: count + 1]}) == count + 1
        assert (colors[255] == 255).all() and colors.dtype == np.uint8
    assert tuple(palette(2)[1]) == tuple(round(255 * v) for v in to_rgb("#4477AA"))


def test_pictures_may_have_channels_first_or_last():
    images, labels = make_images()
    first = figures.samples(images.transpose(0, 3, 1, 2), labels, CLASSES)
    assert np.array_equal(first.axes[0].images[0].get_array(), images[0])
    assert [text.get_text() for text in first.legends[0].texts] == [*CLASSES, "void"]
    second = figures.samples(images[1:], labels[1:], CLASSES)
    assert [text.get_text() for text in second.legends[0].texts] == list(CLASSES)


def test_places_without_an_image_are_empty():
    images, labels = make_images()
    fig = figures.samples(images, labels, CLASSES, columns=2, lines=2)
    shown = [bool(axis.images) for axis in fig.axes]
    assert shown == [True, True, True, True, True, False, True, False]
    assert [axis.axison for axis in fig.axes] == shown


def test_of_many_classes_the_legend_names_those_to_be_seen():
    names = [f"class {place}" for place in range(150)]
    maps = np.array([[[3, 3, 149], [255, 0, 3]]])
    first = figures.samples(np.zeros((1, 3, 2, 3), np.uint8), maps, names)
    assert [text.get_text() for text in first.legends[0].texts] == ["class 0", "class 3", "class 149", "void"]


def test_of_too_many_classes_the_legend_names_the_most_frequent():
    names = [f"class {place}" for place in range(255)]
    maps = np.repeat(np.arange(100), np.where(np.arange(100) % 2, 5, 1)).reshape(1, 15, 20)
    fig = figures.samples(np.zeros((1, 3, 15, 20), np.uint8), maps, names)
    texts = [text.get_text() for text in fig.legends[0].texts]
    odd = [place for place in range(100) if place % 2]
    assert texts == [*(f"class {place}" for place in odd[:40]), "and 60 more"]
    fig.draw_without_rendering()
    corners = fig.legends[0].get_window_extent().get_points() / fig.dpi
    assert (corners >= 0).all() and (corners <= fig.get_size_inches()).all()
