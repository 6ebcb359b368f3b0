"""Pictures of the data: of which runs, of which images, and where they may lie."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from studies import make_piece, make_settings

from rrn import config
from rrn.paper.pictures import EMBEDDED, Gallery
from rrn.pieces import store
from rrn.plotting import qualitative
from rrn.reliability import evidence
from rrn.reliability.evidence import About, Evidence, EvidenceError, Pictures

METHODS = ["cps_cutmix", "rrn", "local_filter"]
CLASSES = ("sky", "road")


def write_evidence(folder, settings, method, seed, splits, pictures):
    """Write evidence of two images of val, unlabeled and test, with two regions each; `pictures`: of how many."""
    row = config.in_row(settings, method)
    draw = np.random.default_rng(seed)
    named = {split: (f"{split}_0", f"{split}_1") for split in splits}
    images = {split: ids[:pictures] for split, ids in named.items()}
    about = About(
        **{"name": "study", "partition": "1of16", "method": method, "seed": seed, "classes": CLASSES, "colours": ()},
        **{"region": 8, "rule": row.filter, "rho": row.rho, "objective": "accuracy", "images": images},
    )
    with evidence.EvidenceWriter(folder / "evidence.zip", about) as writer:
        for split, ids in named.items():
            rows = [{"id": name, "segmenter": k, "row": 0, "column": c} for name in ids for k in (1, 2) for c in (0, 1)]
            table = pd.DataFrame(rows)
            scores = ("region_score", "other_score", "product", "confidence", "certainty", "agreement", "divergence")
            table[list(scores)] = draw.uniform(0.1, 0.9, (len(rows), len(scores)))
            table["pixels"], table["right"] = 64, draw.integers(20, 64, len(rows))
            maps = draw.integers(0, 2, (4, 8, 16)).astype(np.uint8)
            shown = Pictures(np.zeros((8, 16, 3), np.uint8), maps[0], maps[1:3], maps[3])
            writer.add(split, table, dict.fromkeys(ids, shown))


@pytest.fixture
def make(tmp_path):
    """Write the evidence and the pieces of a study, and return its pictures; `lists` changes what is listed."""

    def gallery(splits=("val", "unlabeled", "test"), pictures=2, data=EMBEDDED[0], **lists):
        settings = make_settings(METHODS, [0, 1], **lists)
        for key, (partition, method, seed) in store.listed_runs(settings).items():
            piece = make_piece(settings, method, seed, 40, 42, partition)
            piece = piece.model_copy(update={"run": piece.run.model_copy(update={"data": data})})
            path = tmp_path / store.piece_folder("study") / f"{key}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(piece.text())
            write_evidence(tmp_path / "runs/study/evaluate" / key, settings, method, seed, splits, pictures)
        return Gallery(tmp_path, settings)

    return gallery


def written(gallery, out):
    """Return what is written into a folder, but for figures."""
    gallery.write(out)
    return {path.name for path in out.iterdir()}


def test_what_ships_is_of_the_row_that_is_asked_for_and_without_test_images(make, tmp_path):
    assert written(make(explore="local_filter"), tmp_path / "out") == {"evidence.zip", "pictures.json"}
    shipped = Evidence.read(tmp_path / "out" / "evidence.zip")
    assert (shipped.about.method, shipped.about.seed) == ("local_filter", 0)
    assert shipped.splits == ("val", "unlabeled")


def test_it_is_said_which_evidence_the_pictures_are_of(make, tmp_path):
    make().write(tmp_path / "out")
    said = json.loads((tmp_path / "out" / "pictures.json").read_text())
    assert list(said) == [f"1of16-{method}-0" for method in METHODS]
    held = (tmp_path / "runs/study/evaluate/1of16-rrn-0/evidence.zip").read_bytes()
    assert said["1of16-rrn-0"] == hashlib.sha256(held).hexdigest()[:12]


@pytest.mark.parametrize("explore", [None, "supervised"])
def test_nothing_ships_where_no_row_or_one_that_is_not_run_is_named(make, explore, tmp_path):
    assert written(make(explore=explore), tmp_path / "out") == {"pictures.json"}


def test_without_unlabeled_images_that_have_labels_val_ships_alone(make, tmp_path):
    make(explore="rrn", splits=("val", "test")).write(tmp_path / "out")
    assert Evidence.read(tmp_path / "out" / "evidence.zip").splits == ("val",)


def test_without_pictures_there_are_no_figures_of_images_and_nothing_ships(make, tmp_path):
    gallery = make(explore="rrn", pictures=0)
    assert written(gallery, tmp_path / "out") == {"pictures.json"}
    assert list(gallery.figures()) == []


def test_pictures_of_other_data_do_not_go_to_results_which_git_holds(make, tmp_path):
    own, other, out = make(explore="rrn"), make(explore="rrn", data="0123"), tmp_path / "results" / "x"
    assert own.figure_folder(out) == out / "figures"
    assert other.figure_folder(out) == tmp_path / "runs" / "study" / "pictures" / "figures"
    assert written(other, out) == {"pictures.json"}
    assert written(other, tmp_path / "scratch") == {"evidence.zip", "pictures.json"}
    assert other.figure_folder(tmp_path / "scratch") == tmp_path / "scratch" / "figures"


def test_pictures_are_of_the_test_images_of_all_rows(make, monkeypatch):
    asked = []
    monkeypatch.setattr(
        qualitative, "qualitative", lambda evidences, split, focus: asked.append((list(evidences), split, focus))
    )
    names = [name for name, _ in make(explore="rrn", partitions=("1of16", "1of8")).figures()]
    assert names == ["qualitative_1of16", "qualitative_1of8"]
    assert asked == [(METHODS, "test", "rrn")] * 2


def test_they_are_drawn(make):
    ((_, figure),) = make(explore="rrn").figures()
    assert figure.axes


def test_what_ships_is_of_the_first_partition(make, tmp_path, monkeypatch):
    packed = []
    monkeypatch.setattr(Evidence, "pack", lambda evidence, *_: packed.append(evidence.path.parent.name))
    make(explore="rrn", partitions=("1of8", "1of16")).write(tmp_path / "out")
    assert packed == ["1of8-rrn-0"]


def test_a_run_that_is_not_here_is_named(make, tmp_path):
    settings = make().settings
    (tmp_path / "runs/study/evaluate/1of16-rrn-1/evidence.zip").unlink()  # no first seed
    Gallery(tmp_path, settings)
    (tmp_path / "runs/study/evaluate/1of16-rrn-0/evidence.zip").unlink()
    message = r"^runs/study/evaluate/1of16-rrn-0/evidence.zip is missing: run `dvc repro evaluate@1of16-rrn-0`$"
    with pytest.raises(EvidenceError, match=message):
        Gallery(tmp_path, settings)
