"""No picture of a data set that may not be given away lies in git: results/ shows the embedded one alone."""

import base64
import re
import shutil
import zipfile
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, git
from PIL import Image
from small import write_folder

from rrn import config
from rrn.data.image_set import ImageSet
from rrn.paper import pictures
from rrn.pipeline import fetch
from rrn.preparation import shapes
from rrn.preparation.verification import verify
from rrn.reliability import evidence
from rrn.reliability.evidence import About, Evidence, Pictures

CHARTS = (
    *("calibration", "partitions", "per_class", "per_class_gain", "reliability", "risk_coverage"),
    *("training_curves", "variants"),
)
"""Figures that show no image of a data set."""

PICTURES = ("qualitative",)
TEXTS = {".csv", ".md", ".tex", ".json"}
CLOSE = 12
"""Mean difference of pixels (0..255) below which two images are the same but for their compression."""


def kind(path):
    """Return what a figure is called without its partition and row."""
    return re.sub(r"_(\d+of\d+|\d+|all)(_.*)?$", "", path.stem)


def strange_pictures(results, data):
    """Return the files of results/ that show, or may show, images other than those of the data set `data`."""
    return [
        path.relative_to(results)
        for path in sorted(results.glob("*/**/*"))
        if path.is_file() and not _is_known(path, results, data)
    ]


def _is_known(path, results, data):
    """Whether a file of results/ shows nothing, or images of the data set alone."""
    if path.suffix in TEXTS or (path.parent.name == "figures" and kind(path) in CHARTS):
        return True
    name = path.relative_to(results).parts
    study = results / name[name[0] == "row-pictures"]
    if path.name == evidence.NAME:
        return _is_of(path, data)
    return kind(path) in PICTURES and _classes(study) == (data / "classes.txt").read_text().split("\n")[:-1]


def _classes(study):
    """Return the classes of a study, those of its first method."""
    return list(dict.fromkeys(pd.read_csv(study / "per_class.csv")["class"]))


def _is_of(path, data):
    """Whether every picture in an evidence file is an image of a data set with its label."""
    source = Evidence.read(path)
    shown = {f"{split}/{number}/" for split in source.splits for number in range(len(source.ids(split)))}
    with zipfile.ZipFile(path) as archive:
        folders = {name.rpartition("/")[0] + "/" for name in archive.namelist() if "/" in name}
    if folders - shown:
        return False
    return all(_same(source.pictures(split, name), data, name) for split in source.splits for name in source.ids(split))


def _same(pictures, data, name):
    """Whether pictures are those of an image of a data set."""
    paths = [next(iter(data.glob(f"{kind}/*/{name}.*")), None) for kind in ("images", "labels")]
    if None in paths:
        return False
    image, label = (np.asarray(Image.open(path)).astype(int) for path in paths)
    same = image.shape == pictures.image.shape and np.abs(image - pictures.image).mean() < CLOSE
    return same and np.array_equal(label, pictures.label)


def strange_in_page(results):
    """Return how many pictures of results/report.html are no figure that lies in results/ (as PNG, larger)."""
    uris = re.findall(r'"data:image/([a-z]+);base64,([^"]+)"', (results / "report.html").read_text())
    drawn = [_small(Image.open(BytesIO(base64.b64decode(text)))) for _, text in uris]
    known = [_small(Image.open(path)) for path in results.glob("**/figures/*.png")]
    return sum(min((np.abs(one - other).mean() for other in known), default=255) > CLOSE for one in drawn)


def _small(image):
    """Return a picture as 32 x 32 pixels."""
    return np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BOX)).astype(int)


@pytest.fixture(scope="module")
def data():
    return ROOT / fetch.EMBEDDED


@pytest.fixture(scope="module")
def rendered(data, tmp_path_factory):
    """The data of the studies: as they ship, and all val scenes."""
    folder = tmp_path_factory.mktemp("rendered")
    shapes.write_scenes(data, folder, {"val": config.load(root=ROOT).dataset.scenes.val})
    return folder


def test_the_embedded_data_is_known_by_what_verify_finds(data, tmp_path):
    scenes = config.read(ROOT / "presets/smoke.yaml")["dataset"]["scenes"]
    shapes.write_scenes(data, tmp_path, scenes)
    for folder, checksum in zip((tmp_path, data), pictures.EMBEDDED[1:], strict=True):
        settings = config.load(overrides={"dataset": {"path": str(folder)}}, root=ROOT)
        assert verify(ImageSet.open(settings, ROOT), workers=1).checksum == checksum


def test_results_show_images_of_the_embedded_data_alone(rendered):
    assert strange_pictures(ROOT / "results", rendered) == []


def test_the_page_shows_figures_of_results_alone():
    results = ROOT / "results"
    assert strange_in_page(results) == 0
    page = (results / "report.html").read_text()
    assert page.count("data:image/") == len(list(results.glob("**/figures/*.png"))) == page.count("<img ")


EXPORTS = "tests/annotations/exports/"
"""Of annotation tools: three pictures of 24 x 18 pixels that we drew."""


def test_git_holds_no_other_picture_than_those_of_results_and_of_two_pages():
    ends = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp", ".gif", ".bmp", ".tif", ".npz", ".npy", ".zip")
    held = [name for name in git(ROOT, "ls-files").splitlines() if name.lower().endswith(ends)]
    assert all((ROOT / name).stat().st_size < 1000 for name in held if name.startswith(EXPORTS))
    assert [name for name in held if not name.startswith(("results/", EXPORTS))] == [
        "docs/explore.png",
        "docs/overview.png",
        "docs/overview.svg",
    ]


def written(path, data, images):
    """Write evidence of images of a folder data set."""
    ids = {"train": tuple(images)}
    rule = {"by": "none", "keep": "fraction", "tau": 0.6, "fraction": 0.9, "start": 0}
    about = About(
        **{"name": "n", "partition": "1of4", "method": "rrn", "seed": 0, "classes": ("a", "b", "c"), "colours": ()},
        **{"region": 8, "rule": rule, "rho": "none", "objective": None, "images": ids},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with evidence.EvidenceWriter(path, about) as writer:
        for name in images:
            image, label = (
                np.asarray(Image.open(next(data.glob(f"{kind}/train/{name}.*")))) for kind in ("images", "labels")
            )
            row = {"id": name, "segmenter": 1, "row": 0, "column": 0, "pixels": 4, "right": 2}
            shown = Pictures(image, label, np.stack([label] * 2), label)
            writer.add("train", pd.DataFrame([row]), {name: shown})
    return path


@pytest.fixture
def results(tmp_path):
    """Results of a study of a small data set, with all that may lie there."""
    own = write_folder(tmp_path / "own", {"train": 3})
    place = tmp_path / "results" / "n"
    written(tmp_path / "results" / "row-pictures" / "n" / evidence.NAME, own, ["train000", "train002"])
    shown = tmp_path / "results" / "row-pictures" / "n" / "figures"
    shown.mkdir()
    (shown / "qualitative_1of4.png").touch()
    for name in ("per_class_gain.png", "risk_coverage_1of4_rrn.pdf", "partitions.pdf"):
        (place / "figures").mkdir(exist_ok=True, parents=True)
        (place / "figures" / name).touch()
    pd.DataFrame({"class": ["ground", "disc", "square"]}).to_csv(place / "per_class.csv", index=False)
    return tmp_path / "results"


def test_pictures_of_the_data_set_itself_are_known(results):
    assert strange_pictures(results, results.parent / "own") == []


def test_another_data_set_is_recognized_by_its_images_its_classes_and_unknown_files(results, tmp_path):
    other = shutil.copytree(results.parent / "own", tmp_path / "other")
    for path in other.glob("images/*/*"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path, quality=95)
    assert [path.name for path in strange_pictures(results, other)] == [evidence.NAME]
    (other / "classes.txt").write_text("sky\nroad\n")
    assert len(strange_pictures(results, other)) == 2
    for name in ("n/photo.jpg", "n/figures/collage.png", "n/numbers.npz"):
        (results / name).touch()
    assert len(strange_pictures(results, other)) == 5


def test_a_label_of_another_data_set_and_a_picture_that_is_not_listed_are_recognized(results, tmp_path):
    other = shutil.copytree(results.parent / "own", tmp_path / "other")
    Image.new("L", (28, 20)).save(other / "labels/train/train002.png")
    assert [path.name for path in strange_pictures(results, other)] == [evidence.NAME]
    with zipfile.ZipFile(results / "row-pictures" / "n" / evidence.NAME, "a") as archive:
        archive.writestr("train/7/image.jpg", b"photograph")
    assert [path.name for path in strange_pictures(results, results.parent / "own")] == [evidence.NAME]


def test_a_picture_of_the_page_that_is_no_figure_is_recognized(results):
    draw = np.random.default_rng(0)
    noise = [Image.fromarray(draw.integers(0, 256, (4, 4, 3), np.uint8)).resize((64, 64), 0) for _ in range(2)]
    for path in results.glob("**/figures/*.png"):
        noise[0].save(path)
    uris = []
    for picture in noise:
        stream = BytesIO()
        picture.save(stream, "webp", quality=60)
        uris.append(f'<img src="data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}">')
    (results / "report.html").write_text(uris[0])
    assert strange_in_page(results) == 0
    (results / "report.html").write_text("".join(uris))
    assert strange_in_page(results) == 1
