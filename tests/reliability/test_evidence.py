"""evidence.zip: what is written is read back, the same bytes on a rerun, small enough for git when packed."""

from __future__ import annotations

import zipfile
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

from rrn import config
from rrn.data.splits import evenly_spaced
from rrn.reliability import evidence
from rrn.reliability.evidence import About, Evidence, EvidenceError, Pictures

CLASSES = ("sky", "road, wet", "<b>tree</b>")


def about(**changes) -> About:
    row = config.load("rrn", root=ROOT).method
    values = {
        **{"name": "study", "partition": "1of16", "method": "rrn", "seed": 0, "classes": CLASSES, "colours": ()},
        **{"region": 8, "rule": row.filter, "rho": row.rho, "objective": "accuracy"},
        "images": {"val": ("b", "a"), "unlabeled": ("007",)},
    }
    return About(**values | changes)


def pictures(seed: int) -> Pictures:
    draw = np.random.default_rng(seed)
    smooth = np.linspace(0, 200, 16 * 24 * 3).reshape(16, 24, 3).astype(np.uint8)
    maps = draw.integers(0, 3, (4, 16, 24)).astype(np.uint8)
    maps[0, 0] = 255
    return Pictures(smooth, maps[0], maps[1:3], maps[3])


def regions(*ids: str) -> pd.DataFrame:
    rows = [
        {"id": name, "segmenter": k, "row": row, "column": 0, "region_score": 1 / 3, "pixels": 64, "right": 60}
        for name in ids
        for k in (1, 2)
        for row in (0, 1)
    ]
    return pd.DataFrame(rows)


def write(path):
    with evidence.EvidenceWriter(path, about()) as writer:
        writer.add("val", regions("a", "NA"), {"a": pictures(0), "NA": pictures(1)})
        writer.add("val", regions("b"), {"b": pictures(2)})
        writer.add("unlabeled", regions("007"), {"007": pictures(3)})
    return path


def test_what_is_written_is_read_back(tmp_path):
    read = Evidence.read(write(tmp_path / "evidence.zip"))
    assert read.about == about()
    assert read.splits == ("val", "unlabeled") and read.ids("val") == ("b", "a")
    assert read.last()["id"].tolist() == ["007"] * 4
    assert read.regions["split"].tolist() == ["val"] * 12 + ["unlabeled"] * 4
    assert read.regions["id"].unique().tolist() == [
        "a",
        "NA",
        "b",
        "007",
    ]  # texts, also where they look like numbers
    assert read.regions["region_score"].tolist() == pytest.approx([1 / 3] * 16, rel=1e-5)
    for split, name, seed in (("val", "a", 0), ("val", "b", 2), ("unlabeled", "007", 3)):
        found, wanted = read.pictures(split, name), pictures(seed)
        for key in ("label", "pseudo_labels", "prediction"):
            assert np.array_equal(getattr(found, key), getattr(wanted, key))
        assert np.abs(found.image.astype(int) - wanted.image).mean() < 4  # JPEG


def test_the_same_run_gives_the_same_bytes(tmp_path):
    first, second = (write(tmp_path / name).read_bytes() for name in ("one.zip", "two.zip"))
    assert first == second


def test_pictures_lie_in_the_order_in_which_images_come(tmp_path):
    many(tmp_path / "evidence.zip", 20, np.random.default_rng(0))
    with zipfile.ZipFile(tmp_path / "evidence.zip") as archive:
        places = [name.rsplit("/", 1)[0] for name in archive.namelist() if name.endswith("label.png")]
    assert places == [f"{split}/{place}" for split in ("val", "unlabeled") for place in range(20)]


def test_anything_can_look_into_it(tmp_path):
    with zipfile.ZipFile(write(tmp_path / "evidence.zip")) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert {"evidence.json", "regions.csv", "val/0/image.jpg", "val/1/label.png", "unlabeled/0/prediction.png"} <= {
        *names
    }
    assert len(names) == len(set(names)) == 2 + 3 * 5


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda read: read.ids("tset"), "has no split 'tset'; it has val, unlabeled"),
        (lambda read: read.pictures("val", "NA"), "has no pictures of 'NA' in val; it has 2 others"),
        (
            lambda read: read.pack(read.path.with_name("x.zip"), ["val"], 100),
            "not one image fits 100 bytes; set ablation.explore: null",
        ),
    ],
)
def test_what_it_does_not_hold_is_named(ask, message, tmp_path):
    with pytest.raises(EvidenceError, match=message):
        ask(Evidence.read(write(tmp_path / "evidence.zip")))


def rewritten(path, **members):
    """Write an evidence file anew with other contents of some members; a dot in a name is two underscores."""
    with zipfile.ZipFile(write(path)) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, old in contents.items():
            archive.writestr(name, members.get(name.replace(".", "__").replace("/", "_"), old))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="split"), "regions.csv lacks split"),
        (lambda table: table.assign(region_score="high"), "regions.csv has no numbers in region_score"),
        (lambda table: table.assign(segmenter=3), "regions.csv has a segmenter other than 1 and 2, or a nega.*"),
        (lambda table: table.assign(row=-1), "regions.csv has a segmenter other than 1 and 2, or a nega.*"),
    ],
)
def test_a_table_that_cannot_be_one_says_so(change, message, tmp_path):
    table = Evidence.read(write(tmp_path / "evidence.zip")).regions
    path = rewritten(tmp_path / "evidence.zip", regions__csv=change(table).to_csv(index=False))
    with pytest.raises(EvidenceError, match=rf"is not what the evaluate stage writes \({message}\): run it again"):
        Evidence.read(path)


def test_flipped_bytes_are_found(tmp_path):
    path = write(tmp_path / "evidence.zip")
    with zipfile.ZipFile(path) as archive:
        places = [archive.getinfo(name).header_offset + 60 for name in ("regions.csv", "val/0/label.png")]
    contents = bytearray(path.read_bytes())
    for place in places:
        contents[place] ^= 0xFF
    path.write_bytes(contents)
    with pytest.raises(EvidenceError, match="run it again"):
        Evidence.read(path)
    read = Evidence(path, about(), regions("b").assign(split="val"))
    with pytest.raises(EvidenceError, match="the pictures of 'b' are damaged"):
        read.pictures("val", "b")


def test_a_picture_that_fits_no_map_is_damaged(tmp_path):
    stream = BytesIO()
    Image.new("RGB", (3, 3)).save(stream, "JPEG")
    read = Evidence.read(rewritten(tmp_path / "evidence.zip", val_0_image__jpg=stream.getvalue()))
    with pytest.raises(EvidenceError, match=r"an image of shape \(3, 3, 3\) with maps of shape \(16, 24\)"):
        read.pictures("val", "b")


def test_a_picture_of_a_format_for_which_programs_are_started_is_not_opened(tmp_path, monkeypatch):
    def start(*_):
        raise AssertionError("a program was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", start)
    stream = BytesIO()
    Image.new("RGB", (24, 16)).save(stream, "EPS")
    read = Evidence.read(rewritten(tmp_path / "evidence.zip", val_0_image__jpg=stream.getvalue()))
    with pytest.raises(EvidenceError, match="the pictures of 'b' are damaged"):
        read.pictures("val", "b")


@pytest.mark.parametrize("damage", ["cut", "other", "text", "missing", "column"])
def test_a_file_that_is_none_says_so(damage, tmp_path):
    path = tmp_path / "evidence.zip"
    if damage == "cut":
        path.write_bytes(write(path).read_bytes()[:-30])
    elif damage == "text":
        path.write_text("no archive")
    elif damage == "other":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evidence.json", '{"name": "study"}')
            archive.writestr("regions.csv", "id\n")
    elif damage == "column":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evidence.json", about().model_dump_json())
            archive.writestr("regions.csv", "")
    wanted = "there is no .*evidence.zip: run `dvc repro evaluate`" if damage == "missing" else "run it again"
    with pytest.raises(EvidenceError, match=wanted):
        Evidence.read(path)


def test_an_interrupted_writer_leaves_no_file_that_can_be_taken_for_a_whole_one(tmp_path):
    path = tmp_path / "evidence.zip"
    with pytest.raises(KeyboardInterrupt), evidence.EvidenceWriter(path, about()) as writer:
        writer.add("val", regions("a"), {"a": pictures(0)})
        raise KeyboardInterrupt
    with pytest.raises(EvidenceError):
        Evidence.read(path)


def test_a_packed_file_holds_as_many_images_as_fit_and_only_their_regions(tmp_path):
    read = Evidence.read(write(tmp_path / "evidence.zip"))
    assert read.pack(tmp_path / "results" / "evidence.zip", ["val", "unlabeled"]) == 2
    packed = Evidence.read(tmp_path / "results" / "evidence.zip")
    assert packed.about == read.about
    assert set(packed.regions["id"]) == {"a", "b", "007"}
    assert np.array_equal(packed.pictures("val", "a").label, pictures(0).label)
    assert read.pack(tmp_path / "val.zip", ["val"]) == 2
    assert Evidence.read(tmp_path / "val.zip").splits == ("val",)
    assert read.pack(tmp_path / "none.zip", []) == 0 and not (tmp_path / "none.zip").exists()


def many(path, count, draw, size=(32, 48)):
    """Write evidence of noisy images, whose ids are the same in both splits."""
    names = tuple(f"{place:02d}" for place in range(count))
    described = about(images={"val": names, "unlabeled": names})
    with evidence.EvidenceWriter(path, described) as writer:
        for split in described.images:
            shown = {}
            for name in names:
                noise = draw.integers(0, 256, (*size, 3)).astype(np.uint8)
                maps = draw.integers(0, 3, (4, *size)).astype(np.uint8)
                shown[name] = Pictures(noise, maps[0], maps[1:3], maps[3])
            writer.add(split, regions(*names), shown)
    return Evidence.read(path)


def test_fewer_images_are_packed_where_not_all_fit(tmp_path):
    read = many(tmp_path / "evidence.zip", 20, np.random.default_rng(0))
    whole = (tmp_path / "evidence.zip").stat().st_size
    count = read.pack(tmp_path / "less.zip", ["val", "unlabeled"], whole * 2 // 3)
    assert 8 <= count < 20 and (tmp_path / "less.zip").stat().st_size <= whole * 2 // 3
    less = Evidence.read(tmp_path / "less.zip")
    assert less.ids("val") == less.ids("unlabeled") == evenly_spaced(read.ids("val"), count)
    assert less.about.region == read.about.region and len(less.regions) == 2 * 4 * count
    name = less.ids("unlabeled")[-1]
    assert np.array_equal(less.pictures("unlabeled", name).label, read.pictures("unlabeled", name).label)


def test_pictures_that_are_too_large_are_thinned_out_and_their_regions_with_them(tmp_path):
    read = many(tmp_path / "evidence.zip", 10, np.random.default_rng(0), (33, 47))
    whole = (tmp_path / "evidence.zip").stat().st_size
    assert read.pack(tmp_path / "thin.zip", ["val", "unlabeled"], whole // 2) >= 8
    thin = Evidence.read(tmp_path / "thin.zip")
    step = read.about.region // thin.about.region
    assert step in (2, 4)
    small, large = (source.pictures("val", thin.ids("val")[-1]) for source in (thin, read))
    assert small.image.shape[:2] == small.label.shape == (-(-33 // step), -(-47 // step))
    assert np.array_equal(small.pseudo_labels, large.pseudo_labels[:, ::step, ::step])


def test_an_image_is_thinned_to_its_mean_colors():
    shown = pictures(0).thinned(4)
    assert shown.image.shape == (4, 6, 3)
    assert np.abs(shown.image[1, 2] - pictures(0).image[4:8, 8:12].mean((0, 1))).max() <= 1
    assert np.array_equal(shown.label, pictures(0).label[::4, ::4])


def test_spread_takes_evenly_and_never_more_than_there_are():
    ids = [str(i) for i in range(10)]
    assert evenly_spaced(ids, 5) == ("0", "2", "4", "6", "8")
    assert evenly_spaced(ids, 3) == ("0", "3", "6")
    assert evenly_spaced(ids, 20) == tuple(ids) and evenly_spaced(ids, 0) == () and evenly_spaced([], 3) == ()
