"""Who is labeled: published lists and stratified permutations."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from small import small_settings
from trees import FINE, FURTHER, VAL, write_voc

from rrn.data.decoding import DataError
from rrn.data.formats import voc
from rrn.data.image_set import ImageSet
from rrn.preparation import partitions, published_lists, verification
from rrn.preparation.published_lists import Published

LABELED = [*FINE[:3], FURTHER[0]]
UNLABELED = [*FINE[3:], *FURTHER[1:]]
SPLITS = {"train": "train_aug", "val": "val", "test": "val"}


def settings_of(root, kind="voc", **split):
    data = {"kind": kind, "void": None, **SPLITS}
    return small_settings(root, dataset=data, split={"protocol": "cps", "seed": 0, "stratified": False, **split})


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture
def opened(tree, tmp_path):
    """The tree, its settings and its report; lists are cached elsewhere in each test."""
    settings = settings_of(tree)
    dataset = ImageSet.open(settings, tree)
    report = verification.verify(dataset)
    report.require()
    return dataset, settings, report


@pytest.fixture
def publish(tmp_path, monkeypatch, tree):
    """Publish lists: a catalog and a mirror of its own, and an empty cache."""

    def write(labeled, unlabeled, partition="1of4"):
        entries = []
        for role, ids in {"labeled": labeled, "unlabeled": unlabeled}.items():
            text = "".join(f"{name}\n" for name in ids)
            place = {"repository": "some/where", "commit": "c" * 40, "path": f"{partition}/{role}.txt"}
            facts = {"kind": "voc", "protocol": "cps", "partition": partition, "role": role, "license": "MIT"}
            digest = hashlib.sha256(text.encode()).hexdigest()
            entries.append(asdict(Published(**facts, **place, count=len(ids), sha256=digest)))
            file = tmp_path / "mirror" / "some/where" / ("c" * 40) / partition / f"{role}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (tmp_path / "lists.json").write_text(json.dumps(entries))
        monkeypatch.setattr(published_lists, "CATALOG", tmp_path / "lists.json")
        monkeypatch.setenv("RRN_LISTS", str(tmp_path / "mirror"))
        published_lists.catalog.cache_clear()

    yield write
    published_lists.catalog.cache_clear()
    for path in (tree / "lists").glob("*"):
        path.unlink()


def test_a_published_partition_is_as_published(opened, publish):
    publish(LABELED, UNLABELED)
    split = partitions.make(opened[0], opened[1], "1of4", opened[2])
    assert (split.labeled, split.unlabeled) == (tuple(sorted(LABELED)), tuple(sorted(UNLABELED)))
    assert (split.protocol, split.val) == ("cps", tuple(VAL))
    assert split.origin == "some/where@cccccccccccc 1of4/labeled.txt (MIT)"
    assert partitions.make(opened[0], opened[1], "4", opened[2]).labeled == split.labeled
    cached = {path.name for path in (opened[0].root / "lists").iterdir()}
    assert cached == {"voc-cps-1of4-labeled.txt", "voc-cps-1of4-unlabeled.txt"}


def test_the_report_says_which_labels_are_fine(opened, publish):
    publish(LABELED, UNLABELED)
    split = partitions.make(opened[0], opened[1], "1of4", opened[2])
    table = partitions.image_counts(opened[0], split)
    assert table["finely annotated"].to_dict() == {"labeled": 3, "unlabeled": 5, "val": 0, "test": 0}
    named = partitions.labeled_images(opened[0], split)
    assert list(named.loc[named["finely annotated"], "id"]) == FINE[:3]


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "message"),
    [
        (["2011_999999", *LABELED], UNLABELED, r"1 of the 17 images of the lists of cps are not in dataset.train"),
        (LABELED, UNLABELED[1:], r"dataset.train: train_aug has 1 images that the lists of cps do not name;[^$]*2007_"),
        (LABELED, [*LABELED[:1], *UNLABELED], r"lists 1 images as labeled and as unlabeled: 2007_000000"),
        ([], UNLABELED, r"the list .* is empty"),
    ],
    ids=["missing", "further", "both", "empty"],
)
def test_lists_that_do_not_fit_the_data_are_refused(opened, publish, labeled, unlabeled, message):
    publish(labeled, unlabeled)
    with pytest.raises(DataError, match=message):
        partitions.make(opened[0], opened[1], "1of4", opened[2])


def test_a_labeled_image_without_label_is_named(opened, publish):
    publish(LABELED, UNLABELED)
    label = opened[0].label_path("train_aug", FURTHER[0])
    away = label.rename(label.with_suffix(".away"))
    with pytest.raises(DataError, match=rf"1 labeled images of some/where@.* have no label file:\s+{FURTHER[0]}"):
        partitions.make(opened[0], opened[1], "1of4", opened[2])
    away.rename(label)


def test_a_count_that_no_list_has_is_refused(opened, publish):
    publish(LABELED, UNLABELED)
    with pytest.raises(DataError, match=r"partition '5': split.protocol: cps of voc has 1of4 \(4 labels\)"):
        partitions.make(opened[0], opened[1], "5", opened[2])


def test_labels_of_unlabeled_images_are_not_needed(opened, publish, tmp_path):
    publish(LABELED, UNLABELED)
    dataset, settings, report = opened
    before = partitions.make(dataset, settings, "1of4", report)
    folder = dataset.layout.root / voc.FURTHER
    hidden = [path.rename(path.with_suffix(".away")) for path in folder.glob("*.png") if path.stem != FURTHER[0]]
    try:
        again = verification.verify(dataset)
        again.require()
        after = partitions.make(dataset, settings, "1of4", again)
    finally:
        for path in hidden:
            path.rename(path.with_suffix(".png"))
    assert len(hidden) == len(FURTHER) - 1
    assert (after.labeled, after.unlabeled) == (before.labeled, before.unlabeled)


def classes_of(count=480, classes=6):
    """Pixels of images whose classes are ever rarer, each at random."""
    rng = np.random.default_rng(1)
    shows = rng.random((count, classes)) < 0.6 ** np.arange(classes)
    return np.column_stack([shows * 10, np.zeros(count, int)])


def test_stratified_prefixes_show_the_classes_as_often_as_all_images_do():
    pixels = classes_of()
    share = (pixels[:, :-1] > 0).mean(0)
    off = {"stratified": [], "plain": []}
    for seed in range(20):
        orders = {"stratified": partitions.stratified(pixels, seed)}
        orders["plain"] = np.random.default_rng(seed).permutation(len(pixels))
        for name, order in orders.items():
            assert sorted(order) == list(range(len(pixels)))
            off[name].append(np.abs((pixels[order[:30], :-1] > 0).mean(0) - share)[-1])
    assert np.mean(off["stratified"]) < 0.5 * np.mean(off["plain"])


def test_images_that_show_no_class_come_last_in_a_stratified_order():
    pixels = classes_of()
    void = np.zeros((5, pixels.shape[1]), pixels.dtype)
    void[:, -1] = 9
    order = partitions.stratified(np.concatenate([void, pixels]), 0).tolist()
    assert {*order[-5:]} == {*range(5)}
    assert [place - 5 for place in order[:-5]] == partitions.stratified(pixels, 0).tolist()


def test_stratified_orders_are_reproducible_and_seeded():
    pixels = classes_of()
    orders = [partitions.stratified(pixels, seed).tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_stratified_partitions_are_nested(opened):
    dataset, _, report = opened
    settings = settings_of(dataset.root, protocol="seeded", stratified=True)
    made = [partitions.make(dataset, settings, partition, report) for partition in ("1of8", "1of4", "1of2")]
    assert [len(split.labeled) for split in made] == [2, 4, 8]
    assert set(made[0].labeled) < set(made[1].labeled) < set(made[2].labeled)
    assert made[0].origin == "stratified permutation of the 16 train images with labels, seed 0"


def test_an_image_without_any_class_is_no_obstacle():
    pixels = np.array([[0, 0, 5], [1, 0, 4], [0, 1, 4]])
    assert sorted(partitions.stratified(pixels, 0)) == [0, 1, 2]


def test_the_fine_lists_are_found_under_both_names(tree):
    dataset = ImageSet.open(settings_of(tree), Path("/"))
    path = dataset.layout.root / voc.LISTS / "train_aug.txt"
    other = path.rename(path.with_name("trainaug.txt"))
    try:
        assert dataset.ids("train_aug") == FINE + FURTHER
    finally:
        other.rename(path)
