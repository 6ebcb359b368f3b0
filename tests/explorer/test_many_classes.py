"""Tables of regions, two columns a class: with any number of classes, nothing is slow, and no warning is written."""

import warnings

import evidences
import pytest
from fake import Fake, described, random_batch
from matplotlib import pyplot as plt

from rrn.explorer.analysis import Choice, Regions, class_table, image_regions
from rrn.paper import reliability_plots
from rrn.plotting import qualitative
from rrn.reliability import evidence, measures
from rrn.reliability.curves import run_curves
from rrn.reliability.evidence import Evidence
from rrn.reliability.selection import kept_regions

COUNTS = [3, 43, 44, 60, 255]


def names(count):
    """Return the names of so many classes."""
    return tuple(f"class {place}" for place in range(count))


@pytest.fixture(autouse=True)
def strict():
    """Let any warning fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    plt.close("all")


@pytest.fixture(params=COUNTS)
def finished(request, tmp_path):
    """Evidence of two methods, as it is read."""
    classes = names(request.param)
    return {
        method: Evidence.read(evidences.write(tmp_path / f"{method}.zip", judged=method == "rrn", classes=classes))
        for method in ("rrn", "cps_cutmix")
    }


def test_images_on_which_methods_differ_are_drawn(finished):
    qualitative.qualitative(finished, "unlabeled", focus="rrn")


def test_what_scores_are_worth_is_drawn_and_packed(finished, tmp_path):
    read = finished["rrn"]
    regions = read.last()
    assert kept_regions(regions, read.about.rule).mean() == pytest.approx(0.75, abs=0.1)
    reliability_plots.plot_risk_coverage([run_curves(regions, read.about.rule)])
    assert read.pack(tmp_path / "packed.zip", read.splits) == 3
    assert Evidence.read(tmp_path / "packed.zip").regions.columns.tolist() == read.regions.columns.tolist()


def test_they_are_explored(finished):
    regions = Regions(finished["rrn"], "val")
    choice = Choice(regions.images[0], "region_score", "threshold", 0.5, "region_score", "agreement", (1, 2))
    assert len(image_regions(regions, choice)) and len(class_table(regions, choice))


@pytest.mark.parametrize("count", COUNTS)
def test_they_are_described_and_written_by_an_evaluation(tmp_path, count):
    table = described(Fake(), [random_batch(seed) for seed in range(2)], names(count))
    about = Evidence.read(evidences.write(tmp_path / "a.zip", classes=names(count))).about
    with evidence.EvidenceWriter(tmp_path / "b.zip", about) as writer:
        writer.add("val", table, {})
    read = Evidence.read(tmp_path / "b.zip").regions
    counted = [column for column in table if ":" in column]
    assert len(counted) == 2 * count and read[counted].equals(table[counted])
    assert measures.summarize(table).assign(split="val")["class"].nunique() <= 1 + count
