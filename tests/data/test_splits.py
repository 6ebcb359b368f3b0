"""Who is labeled."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small import CLASSES, partitioned, small_settings, verified, write_folder

from rrn.config import Settings
from rrn.data import splits
from rrn.data.decoding import DataError
from rrn.data.image_set import ImageSet
from rrn.data.splits import Split
from rrn.preparation import partitions


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, Settings]:
    return _opened(write_folder(tmp_path_factory.mktemp("splits") / "data"))


@pytest.fixture
def own(tmp_path: Path) -> tuple[ImageSet, Settings]:
    return _opened(write_folder(tmp_path / "data"))


def _opened(root: Path) -> tuple[ImageSet, Settings]:
    settings = small_settings(root, split={"seed": 3})
    return ImageSet.open(settings, root.parent), settings


@pytest.mark.parametrize(
    ("partition", "count"),
    [("1of16", 1), ("1of8", 2), ("1of4", 4), ("5", 5), ("all", 16), ("1of100", 1), ("3of4", 12)],
)
def test_counts(shared: tuple[ImageSet, Settings], partition: str, count: int) -> None:
    split = partitioned(*shared, partition)
    assert len(split.labeled) == count
    assert sorted(split.labeled + split.unlabeled) == shared[0].ids("train")
    assert (split.partition, split.protocol, split.classes) == (partition, "seeded", CLASSES)
    assert split.origin == "plain permutation of the 16 train images with labels, seed 3"
    assert split.val == tuple(shared[0].ids("val"))


def test_nested_and_seeded(shared: tuple[ImageSet, Settings]) -> None:
    dataset, settings = shared
    made = [set(partitioned(dataset, settings, p).labeled) for p in ("1of16", "1of8", "1of4", "9")]
    assert made[0] < made[1] < made[2] < made[3]
    assert partitioned(dataset, settings, "9") == partitioned(dataset, settings, "9")
    other = settings.model_copy(update={"split": settings.split.model_copy(update={"seed": 4})})
    assert set(partitioned(dataset, other, "9").labeled) != made[3]


def test_without_a_seed_of_its_own_the_permutation_is_that_of_the_run(shared: tuple[ImageSet, Settings]) -> None:
    dataset, settings = shared
    free = settings.model_copy(update={"split": settings.split.model_copy(update={"seed": None})})
    report = verified(dataset)
    made = [partitions.make(dataset, free, "9", report, seed) for seed in (3, 4)]
    assert made[0] == partitions.make(dataset, settings, "9", report, 4), "split.seed is above the seed of the run"
    assert made[0].labeled != made[1].labeled and made[1].origin.endswith("seed 4")


def test_a_sample_is_spread_evenly_and_all_where_there_is_no_limit() -> None:
    ids = tuple("abcdefgh")
    assert splits.sample(ids, 4) == ("a", "c", "e", "g")
    assert splits.sample(ids, 9) == splits.sample(ids, None) == ids


def test_images_without_labels_are_unlabeled(own: tuple[ImageSet, Settings]) -> None:
    dataset, settings = own
    for name in dataset.ids("train")[:8]:
        dataset.label_path("train", name).unlink()
    split = partitioned(dataset, settings, "all")
    assert split.unlabeled == tuple(dataset.ids("train")[:8])
    assert len(partitioned(dataset, settings, "1of4").labeled) == 2
    with pytest.raises(DataError, match=r"'9' asks for 9 labeled images, but 8 train images have"):
        partitioned(dataset, settings, "9")


def test_nothing_labeled(own: tuple[ImageSet, Settings]) -> None:
    for path in (own[0].layout.root / "labels/train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no train image has a label file"):
        partitioned(*own, "1of4")


def test_missing_label_in_test(own: tuple[ImageSet, Settings]) -> None:
    own[0].label_path("test", "test001").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images of 'test' have no label .*\n.*test001.png"):
        partitioned(*own, "1of4")


@pytest.mark.parametrize("partition", ["half", "1of0", "of", "2of1"])
def test_impossible_partition(shared: tuple[ImageSet, Settings], partition: str) -> None:
    with pytest.raises(DataError, match=f"partition '{partition}'"):
        partitioned(*shared, partition)


def test_file_is_stable_and_comes_back(shared: tuple[ImageSet, Settings], tmp_path: Path) -> None:
    split = partitioned(*shared, "1of4")
    path = splits.write_split(split, tmp_path / "prepare" / "1of4")
    assert path.name == "split.json"
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert splits.read_split(path.parent) == split
    splits.write_split(splits.read_split(path.parent), path.parent)
    assert path.read_text(encoding="utf-8") == text


def test_bad_files(shared: tuple[ImageSet, Settings], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split.json is missing: run the prepare stage"):
        splits.read_split(tmp_path)
    path = splits.write_split(partitioned(*shared, "1of4"), tmp_path)
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"split.json is no JSON"):
        splits.read_split(tmp_path)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"split.json must have exactly the keys partition, protocol"):
        splits.read_split(tmp_path)
    values["unlabeled"].append(values["labeled"][0])
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(DataError, match=r"split.json: .* 1 images as labeled and as unlabeled: tr"):
        splits.read_split(tmp_path)


@pytest.mark.parametrize("name", ["../../val/x", "/etc/x", "a/b", "..", "", "a\0b", "a\nb"])
@pytest.mark.parametrize("key", ["labeled", "unlabeled", "val", "test"])
def test_a_split_names_no_file_elsewhere(
    shared: tuple[ImageSet, Settings], tmp_path: Path, key: str, name: str
) -> None:
    path = splits.write_split(partitioned(*shared, "1of4"), tmp_path)
    values = json.loads(path.read_text(encoding="utf-8"))
    values[key].append(name)
    path.write_text(json.dumps(values), encoding="utf-8")
    message = f"split.json: .* lists {re.escape(repr(name))} as {key}, which names no image"
    with pytest.raises(DataError, match=message):
        splits.read_split(tmp_path)


def test_contradictions(shared: tuple[ImageSet, Settings]) -> None:
    split: Split = partitioned(*shared, "1of4")
    with pytest.raises(DataError, match="the partition 1of4 has no val image"):
        replace(split, val=())
    with pytest.raises(DataError, match="lists 'a' twice as test"):
        replace(split, test=("a", "a"))


def test_frequencies(own: tuple[ImageSet, Settings]) -> None:
    dataset, settings = own
    split = partitioned(dataset, settings, "1of4")
    table = partitions.frequencies(verified(dataset), split)
    assert list(table.columns) == ["class", "labeled", "unlabeled", "val"]
    assert table["class"].tolist() == [*CLASSES, "void"]
    labels = np.stack([dataset.label("train", name) for name in split.labeled])
    expected = [np.mean(labels == value) for value in (0, 1, 2, 255)]
    np.testing.assert_allclose(table["labeled"], expected)
    assert table["val"].sum() == table["unlabeled"].sum() == pytest.approx(1)
    for name in split.unlabeled:
        dataset.label_path("train", name).unlink()
    table = partitions.frequencies(verified(dataset), split)
    np.testing.assert_allclose(table["labeled"], expected)
    assert table["unlabeled"].isna().all()


SMALL = Split(
    partition="1of2",
    protocol="classic",
    origin="a list",
    data="0123",
    classes=("ground", "disc"),
    colours=((0, 0, 0), (255, 0, 9)),
    labeled=("a",),
    unlabeled=("b",),
    val=("v",),
    test=("t",),
)
LINES = """{
  "classes": [
    "ground",
    "disc"
  ],
  "colours": [
    [
      0,
      0,
      0
    ],
    [
      255,
      0,
      9
    ]
  ],
  "data": "0123",
  "labeled": [
    "a"
  ],
  "origin": "a list",
  "partition": "1of2",
  "protocol": "classic",
  "test": [
    "t"
  ],
  "unlabeled": [
    "b"
  ],
  "val": [
    "v"
  ]
}
"""


def test_the_bytes_of_the_file_do_not_change_for_all_stages_depend_on_them(tmp_path: Path) -> None:
    assert splits.write_split(SMALL, tmp_path).read_bytes() == LINES.encode()


def test_a_repeated_image_is_the_one_that_is_named() -> None:
    with pytest.raises(DataError, match=r"^the partition 1of2 lists 'y' twice as unlabeled$"):
        replace(SMALL, unlabeled=("x", "y", "y"))


def test_ten_of_many_contradicting_images_are_named_in_order() -> None:
    ids = tuple(f"i{n:02d}" for n in range(12))
    with pytest.raises(DataError) as caught:
        replace(SMALL, labeled=ids[::-1], unlabeled=ids)
    assert str(caught.value) == (
        "the partition 1of2 lists 12 images as labeled and as unlabeled: i00, i01, i02, i03, i04, i05, i06, i07, "
        "i08, i09; remove them from one list"
    )


def test_what_is_wrong_in_a_file_is_named_by_its_place(tmp_path: Path) -> None:
    path = splits.write_split(SMALL, tmp_path)
    values = json.loads(path.read_text(encoding="utf-8"))
    values["colours"][1][2] = "red"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(DataError, match=r"split\.json: colours\.1\.2 Input should be a valid integer"):
        splits.read_split(tmp_path)
    values |= {"colours": [], "val": []}
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(DataError, match=r"split\.json: the partition 1of2 has no val image"):
        splits.read_split(tmp_path)
