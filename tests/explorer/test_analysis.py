"""What the explorer computes and draws: by hand, against the method itself, and table against picture."""

import io
from dataclasses import replace

import evidences
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from rrn.data.batches import WholeBatch
from rrn.evaluation import region_tables
from rrn.explorer import analysis, image_view, split_view
from rrn.explorer.analysis import Choice, Regions
from rrn.models import regions
from rrn.reliability import measures, selection
from rrn.reliability.evidence import About, Evidence, EvidenceError
from rrn.reliability.scores import LATER, RANKED, SCORES
from rrn.reliability.selection import RHOS

COLUMNS = ["id", "segmenter", "row", "column", *evidences.KNOWN, "pixels", "right"]
HAND = pd.DataFrame(
    [
        ("a", 1, 0, 0, 0.9, 0.5, 0.45, 0.7, 0.6, 1.0, 0.0, 4, 4),
        ("a", 1, 0, 1, 0.7, 0.9, 0.63, 0.6, 0.5, 0.5, 0.2, 2, 0),
        ("b", 1, 0, 0, 0.5, 0.7, 0.35, 0.9, 0.8, 0.25, 0.4, 4, 3),
        ("b", 1, 0, 1, 0.3, 0.1, 0.03, 0.8, 0.7, 1.0, 0.0, 4, 4),
        ("a", 2, 0, 0, 0.2, 0.2, 0.04, 0.2, 0.2, 1.0, 0.0, 4, 2),
        ("a", 2, 0, 1, 0.4, 0.4, 0.16, 0.4, 0.4, 0.5, 0.2, 2, 2),
        ("b", 2, 0, 0, 0.6, 0.6, 0.36, 0.6, 0.6, 0.25, 0.4, 4, 4),
        ("b", 2, 0, 1, 0.8, 0.8, 0.64, 0.8, 0.8, 1.0, 0.0, 4, 0),
    ],
    columns=COLUMNS,
)


def held(table, images=("a", "b"), rule=evidences.RULE, region=2, path="somewhere"):
    """Return the regions of a table that lies in no file."""
    table = evidences.with_all_scores(table)
    about = About(
        name="n", partition="p", method="m", seed=0, classes=("x",), colours=(), region=region, rule=rule, rho="none",
        objective="accuracy", images={"val": tuple(images)},
    )  # fmt: skip
    return Regions(Evidence(path, about, table.assign(split="val")), "val")


@pytest.fixture
def small(tmp_path):
    return Regions(Evidence.read(evidences.write(tmp_path / "evidence.zip")), "val")


# ---- what is kept


@pytest.mark.parametrize(
    ("by", "keep", "value", "expected"),
    [
        ("none", "fraction", 0.1, [1, 1, 1, 1, 1, 1, 1, 1]),
        ("region_score", "fraction", 0.5, [1, 1, 0, 0, 0, 0, 1, 1]),
        ("region_score", "fraction", 0.375, [1, 1, 0, 0, 0, 0, 1, 1]),  # 1.5 regions are 2
        ("region_score", "fraction", 0.25, [1, 0, 0, 0, 0, 0, 0, 1]),
        ("region_score", "threshold", 0.5, [1, 1, 1, 0, 0, 0, 1, 1]),
        ("product", "threshold", 0.36, [1, 1, 0, 0, 0, 0, 1, 1]),
        ("confidence", "fraction", 0.5, [0, 0, 1, 1, 0, 0, 1, 1]),
        ("certainty", "fraction", 0.0, [0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_kept_by_hand(by, keep, value, expected):
    choice = Choice("a", by, keep, value)
    assert analysis.kept(held(HAND), choice).astype(int).tolist() == expected


@pytest.mark.parametrize("score", RANKED)
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_kept_is_what_reliability_counts(small, score, fraction):
    keeps = analysis.kept(small, Choice("val_0", score, "fraction", fraction))
    for k in (1, 2):
        own = small.segmenter == k
        count = selection.keep_count(fraction, own.sum())
        share = selection.kept_share(small.column(score)[own], count)
        assert keeps[own].sum() == count
        assert not keeps[own][share == 0].any() and keeps[own][share == 1].all()


def test_ties_at_the_cut_are_kept_from_images_everywhere():
    rows = [(f"i{i:02}", 1, 0, 0, *[0.5] * 5, 1.0, 0.0, 4, 2) for i in range(40)]
    tied = held(pd.DataFrame(rows, columns=COLUMNS), images=("i00",))
    keeps = analysis.kept(tied, Choice("i00", "agreement", "fraction", 0.5))
    assert keeps.sum() == 20
    assert 3 <= keeps[:20].sum() <= 17
    assert (keeps == analysis.kept(tied, Choice("i00", "agreement", "fraction", 0.5))).all()


# ---- weights


def test_weights_by_hand():
    choice = Choice("a", "region_score", "fraction", 0.5, rho="agreement")
    # segmenter 1 keeps 1 (4 pixels) and 1/2 (2 pixels), mean 5 / 6; segmenter 2 keeps 1/4 (4) and 1 (4), mean 5 / 8
    expected = [1 / (5 / 6), 0.5 / (5 / 6), 0, 0, 0, 0, 0.25 / (5 / 8), 1 / (5 / 8)]
    assert analysis.weights(held(HAND), choice) == pytest.approx(expected)
    plain = analysis.weights(held(HAND), replace(choice, rho="none"))
    assert plain.tolist() == [1, 1, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [("product", 0.45, 0.63), ("mean", 0.7, 0.8), ("votes", 0.5, 1), ("divergence", 1, np.exp(-0.2))],
)
def test_rho_by_hand(kind, first, second):
    choice = Choice("a", "region_score", "fraction", 0.5, rho=kind)  # votes: from the row's tau, 0.6
    assert analysis.rho(held(HAND), choice)[:2] == pytest.approx([first, second])


def test_votes_follow_the_threshold_of_the_region_score():
    choice = Choice("a", "region_score", "threshold", 0.75, rho="votes")
    assert analysis.rho(held(HAND), choice)[:2].tolist() == [0.5, 0.5]
    assert analysis.rho(held(HAND), replace(choice, value=0.7))[:2].tolist() == [0.5, 1.0]  # 0.7 itself is enough
    assert analysis.rho(held(HAND), replace(choice, by="confidence"))[:2].tolist() == [0.5, 1.0]


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("size", [(32, 48), (33, 41)])
def test_weights_are_those_of_the_method(rho, size):
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(256, (3, 3, *size), dtype=torch.uint8, generator=draw)
    logits = torch.randn((2, 3, tiny.CLASSES, *size), generator=draw) + torch.randn((3, tiny.CLASSES, 1, 1))
    rule = {"by": "region_score", "keep": "fraction", "fraction": 0.6}
    rule["tau"] = tiny.threshold_in_a_gap(tiny.still(tiny.model("rrn")).region_scores(logits, images))
    network = tiny.still(tiny.model("rrn", {"method": {"filter": rule, "rho": rho}}))
    names, probabilities = ("a", "b", "c"), logits.softmax(2)
    predictions = torch.cat([logits.argmax(2), probabilities.mean(0).argmax(1)[None]])
    batch = WholeBatch(images, torch.randint(tiny.CLASSES, (3, *size), generator=draw), names)
    table = region_tables.region_table(
        network, region_tables.Predictions(batch, logits, probabilities, predictions), ["x", "y", "z"]
    )
    of = held(table, names, network.row.filter, network.region)
    choice = Choice("a", "region_score", "fraction", 0.6, rho=rho)
    ours = np.stack([of.grid(name, analysis.weights(of, choice), size) for name in names], axis=1)

    with torch.no_grad():
        valid = torch.ones(3, 1, *size)
        theirs, counts = tiny.weigh(network, logits, network.normalize(images), valid)
    rows, columns = (torch.arange(length) // network.region for length in size)
    assert np.abs(ours[..., rows[:, None], columns] - theirs[:, :, 0].numpy()).max() < 1e-5
    assert analysis.kept(of, choice).mean() == pytest.approx(float(counts["coverage"]))
    assert regions.grid_of(*size, network.region) == ours.shape[2:]
    if rho != "none":
        assert len(np.unique(ours)) > 2, "this rho tells nothing apart here"


@pytest.mark.parametrize("rho", selection.RHOS)
def test_pixels_that_are_kept_weigh_one_in_the_mean(small, rho):
    choice = Choice("val_0", "confidence", "fraction", 0.7, rho=rho)
    weights, keeps, pixels = analysis.weights(small, choice), analysis.kept(small, choice), small.column("pixels")
    assert (weights[~keeps] == 0).all()
    for k in (1, 2):
        own = keeps & (small.segmenter == k)
        assert np.average(weights[own], weights=pixels[own]) == pytest.approx(1)


# ---- images


def test_orders_by_hand():
    of, choice = held(HAND), Choice("a", "region_score", "fraction", 0.5, segmenters=(1,))
    # image a: 4 right kept, 2 wrong kept: 1 + 0; b: nothing kept: 0 + 1; a tie, by id
    assert analysis.ordered(of, choice, "worst filtered") == ("a", "b")
    # both segmenters: a keeps 2 of 4 wrong and drops 4 of 8 right: 1; b keeps 4 of 5 wrong, drops 7 of 11 right: 1.44
    assert analysis.ordered(of, replace(choice, segmenters=(1, 2)), "worst filtered") == ("b", "a")
    # wrong and kept: a 2 of 6 pixels, b none; of segmenter 2: a none, b 4 of 8
    assert analysis.ordered(of, choice, "most wrong kept") == ("a", "b")
    assert analysis.ordered(of, replace(choice, segmenters=(2,)), "most wrong kept") == ("b", "a")
    # differing: a 1 of 6, b 3 of 8
    assert analysis.ordered(of, choice, "most disagreement") == ("b", "a")
    assert analysis.ordered(of, choice, "by id") == ("a", "b")


def test_an_image_without_a_wrong_pixel_can_be_filtered_badly():
    rows = [("a", 1, 0, 0, *[0.9] * 5, 1.0, 0.0, 4, 3), ("a", 1, 0, 1, *[0.1] * 5, 1.0, 0.0, 4, 2)]
    perfect = ("b", 1, 0, 0, *[0.2] * 5, 1.0, 0.0, 4, 4)
    of = held(pd.DataFrame([*rows, perfect], columns=COLUMNS))
    # a keeps 1 of 3 wrong pixels and drops 2 of 5 right ones: 0.73; b drops all its right ones: 1
    assert analysis.ordered(of, Choice("a", "region_score", "threshold", 0.5), "worst filtered") == ("b", "a")


@pytest.mark.parametrize("order", analysis.ORDERS)
def test_orders_are_of_the_images_with_pictures(small, order):
    assert sorted(analysis.ordered(small, analysis.default(small), order)) == ["val_0", "val_1", "val_2"]


def test_a_region_table_has_the_least_right_first():
    choice = Choice("a", "region_score", "fraction", 0.5, rho="agreement")
    table = analysis.image_regions(held(HAND), choice)
    assert table["accuracy"].tolist() == [0, 0.5, 1, 1]
    assert table["kept"].tolist() == [True, False, True, False]
    assert table[["segmenter", "row", "column"]].iloc[0].tolist() == [1, 0, 1]
    assert table["weight"].tolist() == pytest.approx([0.6, 0, 1.2, 0])
    assert set(SCORES) < set(table)
    assert len(analysis.image_regions(held(HAND), replace(choice, segmenters=(2,)))) == 2


def test_the_summary_says_it_in_words():
    choice = Choice("a", "region_score", "fraction", 0.5, segmenters=(1,))
    assert analysis.summary(held(HAND), choice) == (
        "This image: kept 2 of 2 regions, 67 % of the kept pixels are right · "
        "all 2 images of val in this file: kept 2 of 4 regions, "
        "67 % of the kept pixels are right, 88 % of the dropped pixels are right"
    )


def test_the_first_look_is_the_rows_own_rule(small, tmp_path):
    assert analysis.default(small) == Choice("val_0", "region_score", "fraction", 0.75, "region_score", "agreement")
    blind = evidences.RULE.model_copy(update={"by": "random"})
    first = analysis.default(held(HAND, rule=blind))
    assert (first.by, first.score, first.rho) == ("none", "region_score", "none")


# ---- the split


def test_class_table_by_hand(small):
    choice = analysis.default(small)
    table = analysis.class_table(small, choice).set_index("class")
    keeps, everything = analysis.kept(small, choice), small.table
    assert list(table.index) == [measures.EVERYTHING, *evidences.CLASSES]
    for name in evidences.CLASSES:
        pixels, right = everything[f"pixels:{name}"], everything[f"right:{name}"]
        row = table.loc[name]
        assert row["pixels"] == pixels.sum()
        assert row["kept"] == pytest.approx(pixels[keeps].sum() / pixels.sum())
        assert row["accuracy_kept"] == pytest.approx(right[keeps].sum() / pixels[keeps].sum())
        assert row["accuracy_dropped"] == pytest.approx(right[~keeps].sum() / pixels[~keeps].sum())
    assert table["pixels"].iloc[0] == table["pixels"].iloc[1:].sum()


def test_curves_end_where_everything_is_kept(small):
    curves = analysis.coverage_curves(small, (1, 2))
    accuracy = small.column("right").sum() / small.column("pixels").sum()
    for score in RANKED:
        last = curves[curves["score"] == score].iloc[-1]
        assert (last["coverage"], last["accuracy"]) == pytest.approx((1, accuracy))


def test_the_name_of_a_class_is_no_formula():
    table = pd.DataFrame({"class": ["$a$ and $b^$"], "kept": 0.5, "accuracy_kept": 0.5, "accuracy_dropped": 0.5})
    fig = Figure()
    split_view._classes(fig.subplots(), table)
    FigureCanvasAgg(fig).draw()
    assert [text.get_text() for text in fig.axes[0].get_yticklabels()] == [r"\$a\$ and \$b^\$"]


def test_histogram_counts_every_pixel_once():
    table = analysis.histogram(held(HAND), Choice("a", score="agreement", segmenters=(1,)), bins=4)
    assert table["right"].tolist() == [0, 3, 0, 8]
    assert table["wrong"].tolist() == [0, 1, 2, 0]
    assert table[["low", "high"]].iloc[-1].tolist() == [0.75, 1]


@pytest.mark.parametrize("segmenters", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("keep", ["fraction", "threshold"])
def test_the_figure_is_drawn_and_the_same_again(small, segmenters, keep):
    choice = replace(analysis.default(small), segmenters=segmenters, keep=keep)
    one, two = (split_view.figure_png(split_view.split_figure(small, choice)) for _ in range(2))
    assert one == two
    assert one != split_view.figure_png(split_view.split_figure(small, replace(choice, value=0.2)))


# ---- the picture


def drawn(of, choice):
    """Return the sheet of a choice, and the picture."""
    pictures = of.source.pictures(of.split, choice.id)
    size = pictures.label.shape
    scores = of.grid(choice.id, of.column(choice.score), size)
    sheet = image_view.ImageView(of.about, pictures, scores, choice.segmenters, choice.score, choice.rho != "none")
    values = analysis.kept(of, choice), analysis.weights(of, choice)
    return sheet, sheet.drawn(*(of.grid(choice.id, each, size) for each in values))


def test_rows_and_columns_of_regions_are_numbered_as_in_the_table(small):
    sheet, picture = drawn(small, analysis.default(small))
    rows, columns = 3, 4
    written = (picture < 200).all(-1)
    for row in range(len(sheet.segmenters)):
        for column in range(6):
            left, top = sheet.corner(row, column)
            width, height = sheet.panel
            beside = written[top : top + height, left - sheet.gap + 1 : left - 2]
            below = written[top + height + 2 : top + height + 2 + image_view.TINY, left : left + width]
            found = [part.any() for part in (*np.array_split(beside, rows), *np.array_split(below, columns, axis=1))]
            assert found == [column >= 3] * (rows + columns)


def counted(panel, factor):
    """Return how often each color of ERRORS occurs in an error map, grid lines left out."""
    small = panel[factor // 2 :: factor, factor // 2 :: factor]
    return {name: int((small == np.array(color)).all(-1).sum()) for name, color in image_view.ERRORS.items()}


@pytest.mark.parametrize("name", ["val_0", "val_1", "val_2"])
def test_the_error_map_counts_what_the_table_counts(small, name):
    choice = replace(analysis.default(small), id=name, value=0.5)
    sheet, picture = drawn(small, choice)
    assert sheet.factor == 6
    keeps, rows = analysis.kept(small, choice), small.rows(name)
    for row, k in enumerate((1, 2)):
        left, top = sheet.corner(row, 5)
        width, height = sheet.panel
        seen = counted(picture[top : top + height, left : left + width], sheet.factor)
        own = small.table.iloc[rows][small.segmenter[rows] == k]
        chosen = keeps[own.index]
        wrong = own["pixels"] - own["right"]
        assert seen == {
            "right, kept": own["right"][chosen].sum(),
            "right, dropped": own["right"][~chosen].sum(),
            "wrong, kept": wrong[chosen].sum(),
            "wrong, dropped": wrong[~chosen].sum(),
            "void": 9 * 10,
        }


def test_long_names_of_classes_take_several_lines_of_the_legend(small):
    choice = replace(analysis.default(small), id="val_0")
    short = drawn(small, choice)[0]
    names = tuple(f"{name} {'x' * 30}" for name in small.about.classes)
    small.about = small.about.model_copy(update={"classes": names})
    sheet = drawn(small, choice)[0]
    assert len(short._names) == 1 < len(sheet._names)
    assert [name for line in sheet._names for name, _ in line] == [*names, "void"]
    assert all(line[0][1] == 0 for line in sheet._names)


def test_of_many_classes_the_sheet_names_those_to_be_seen(small):
    choice = replace(analysis.default(small), id="val_0")
    few = drawn(small, choice)[0]
    more = [f"{place}" for place in range(len(small.about.classes), 255)]
    small.about = small.about.model_copy(update={"classes": (*small.about.classes, *more)})
    sheet, picture = drawn(small, choice)
    names = [name for line in sheet._names for name, _ in line]
    seen = np.unique([few.label, *few.pseudo_labels])
    assert names[-1] == "void" and set(names) - {"void"} <= set(few.about.classes)
    assert {few.about.classes[place] for place in seen if place != 255} <= set(names)
    assert picture.shape == drawn(small, choice)[1].shape == few.drawn(*np.ones((2, 2, 3, 4))).shape


def test_void_is_no_error():
    right, void, keeps = (
        np.array([values], dtype=bool) for values in ([1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [1, 0, 1, 0, 1])
    )
    assert image_view.error_codes(right, void, keeps).tolist() == [[0, 1, 2, 3, 4]]


def test_evidence_whose_regions_do_not_fit_its_pictures_is_refused(small):
    with pytest.raises(EvidenceError, match=r"'val_0' has a region outside of its picture: evaluate the run again"):
        small.grid("val_0", small.column("region_score"), (4, 4))


def test_a_region_without_a_valid_pixel_has_no_score(small):
    scores = small.grid("val_0", small.column("region_score"), (20, 28))
    assert scores.shape == (2, 3, 4)
    assert np.isnan(scores[:, 0, 0]).all() and np.isfinite(scores).sum() == 2 * 11


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 64), (1, 3)), ((120, 160), (1, 1)), ((375, 500), (2, 1)), ((1024, 2048), (6, 1)), ((190, 190), (1, 1))],
)
def test_panels_are_large_enough_to_be_read(size, expected):
    step, factor = image_view.scale(*size)
    assert (step, factor) == expected
    assert image_view.PANEL <= max(size) // step * factor <= image_view.LARGEST


@pytest.mark.parametrize(
    ("size", "region"),
    [
        ((64, 64), 16),
        ((60, 20), 16),
        ((375, 500), 16),
        ((400, 801), 32),
        ((802, 30), 1),
    ],  # the last two thin out regions
)
def test_sheets_of_all_sizes_hold_their_panels(tmp_path, size, region):
    of = Regions(Evidence.read(evidences.write(tmp_path / "e.zip", size=size, region=region, images=1, shown=1)), "val")
    sheet, picture = drawn(of, analysis.default(of))
    left, top = sheet.corner(1, 5)
    assert left + sheet.panel[0] < picture.shape[1] and top + sheet.panel[1] < picture.shape[0]
    assert sheet.column >= sheet.panel[0]
    _, one = drawn(of, replace(analysis.default(of), segmenters=(2,)))
    assert one.shape[0] < picture.shape[0] and one.shape[1] == picture.shape[1]
    assert np.asarray(Image.open(io.BytesIO(image_view.encode_png(one)))).shape == one.shape


def test_a_thinned_out_picture_shows_every_second_pixel(tmp_path):
    of = Regions(
        Evidence.read(evidences.write(tmp_path / "e.zip", size=(375, 500), region=80, images=1, shown=1)), "val"
    )
    sheet, picture = drawn(of, analysis.default(of))
    left, top = sheet.corner(0, 0)
    image = of.source.pictures(of.split, "val_0").image[::2, ::2]
    assert (picture[top + 1 : top + 180, left + 1 : left + 240] == image[1:180, 1:240]).all()


# ---- files


def test_files_are_found_shipped_ones_and_the_current_name_first(tmp_path):
    shipped = ["results/row-pictures/a", "results/row-pictures/b", "results/a"]
    names = ["runs/b/evaluate/p-m-1", *shipped, "runs/b/evaluate/p-m-0", "runs/a/evaluate/p-m-0"]
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "evidence.zip").touch()
    found = analysis.found(tmp_path, "b")
    assert list(found) == [shipped[1], names[4], names[0], shipped[0], shipped[2], names[5]]
    assert found[shipped[1]] == tmp_path / shipped[1] / "evidence.zip"


def test_without_files_it_says_what_makes_them(tmp_path):
    with pytest.raises(
        EvidenceError, match=r"no evidence.zip in .*/results or .*/runs: run `make repro`, or `git checko"
    ):
        analysis.found(tmp_path)


def test_without_discriminators_less_is_offered(tmp_path):
    of = Regions(Evidence.read(evidences.write(tmp_path / "evidence.zip", judged=False)), "val")
    blind = tuple(name for name in SCORES if name not in ("region_score", "other_score", "product"))
    assert of.scores == blind and of.rules == ("none", *blind)
    assert of.rhos == ("none", "agreement", "divergence", "probability")
    assert analysis.default(of).score == "confidence"
    assert set(analysis.coverage_curves(of, (1,))["score"]) == set(blind)
    with pytest.raises(EvidenceError, match=r"has no region score: this run trained no discriminators"):
        analysis.kept(of, Choice("val_0", "region_score"))


def test_a_file_that_is_older_than_a_score_offers_all_others(tmp_path):
    whole = evidences.write(tmp_path / "evidence.zip")
    source = Evidence.read(whole)
    older = Regions(Evidence(whole, source.about, source.regions.drop(columns=[*LATER])), "val")
    assert older.scores == tuple(name for name in SCORES if name != "probability")
    assert older.rules == ("none", *(name for name in RANKED if name != "probability"))
    assert older.rhos == tuple(name for name in selection.RHOS if name != "probability")
    assert set(older.rules[1:]) == set(analysis.coverage_curves(older, (1, 2))["score"])
    choice = analysis.default(older)
    assert split_view.figure_png(split_view.split_figure(older, choice)).startswith(b"\x89PNG")
    assert "probability" not in analysis.image_regions(older, choice)
    said = r"has no probability by both segmenters: the file is older, evaluate the run again"
    for asks in (replace(choice, by="probability"), replace(choice, rho="probability")):
        with pytest.raises(EvidenceError, match=said):
            analysis.weights(older, asks)


def test_rho_by_probability_by_hand():
    table = HAND.assign(probability=[0.5, 1.0, 0.25, 0.75] * 2)
    choice = Choice("a", "region_score", "fraction", 0.5, rho="probability")
    assert analysis.rho(held(table), choice).tolist() == [0.5, 1.0, 0.25, 0.75] * 2


def test_what_git_ships_can_be_explored(root):
    source = Evidence.read(root / "results/row-pictures/shapes/evidence.zip")
    for split in source.splits:
        regions = Regions(source, split)
        assert {"region_score", "confidence", "agreement"} <= set(regions.scores)
        assert analysis.weights(regions, analysis.default(regions)).any()
        assert set(analysis.coverage_curves(regions, (1, 2))["score"]) == set(regions.rules[1:])
        assert split_view.split_figure(regions, analysis.default(regions)).axes


def test_a_table_of_another_version_is_refused():
    with pytest.raises(EvidenceError, match=r"regions.csv lacks product, divergence: evaluate the run again"):
        held(HAND.drop(columns=["product", "divergence"]))


def test_a_split_without_pictures_is_refused():
    with pytest.raises(EvidenceError, match=r"shows no image of val: set log.evidence in params.yaml"):
        held(HAND, images=())
