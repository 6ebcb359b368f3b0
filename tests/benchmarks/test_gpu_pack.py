"""What a machine without network is given: wheels, and a data set that is thinned and made smaller until it fits."""

import importlib
import zipfile

import numpy as np
import pytest
from conftest import ROOT, git
from PIL import Image
from small import CLASSES, HEIGHT, WIDTH, write_folder

from rrn.data.splits import evenly_spaced
from rrn.preparation.verification import verify

gpu_pack = importlib.import_module("gpu_pack")

SPLITS = {"train": 40, "val": 4, "test": 3}
SIDE = 14
WHEEL = b"w" * 2000
VOID = 11


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Give one wheel in place of those of the index, and look for no data set beside the repository."""

    def download(wanted, folder):
        (folder / "one-1.0-py3-none-any.whl").write_bytes(WHEEL)

    monkeypatch.setattr(gpu_pack, "download", download)
    monkeypatch.setattr(gpu_pack, "SIDE", SIDE)
    monkeypatch.setattr(gpu_pack, "ROOT", ROOT / "nowhere" / "repository")
    for name in gpu_pack.VOID:
        monkeypatch.delenv(f"RRN_{name.upper()}", raising=False)


@pytest.fixture
def source(tmp_path):
    """A folder data set in the way of CamVid, whose void is 11, with images that nobody labeled beside it."""
    root = write_folder(tmp_path / "source", SPLITS)
    for path in (root / "labels").rglob("*.png"):
        values = np.array(Image.open(path))
        values[:2, :4] = VOID
        Image.fromarray(values).save(path)
    write_folder(tmp_path / "more", {"extra": 5})
    (tmp_path / "more" / "images" / "extra").rename(root / "images" / "extra")
    return root


def pack(folder, megabytes, *more):
    return gpu_pack.main([str(folder), "--megabytes", str(megabytes), *map(str, more)])


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def ids(folder, kind="images"):
    return {split.name: sorted(path.stem for path in split.iterdir()) for split in (folder / kind).iterdir()}


def test_wheels_alone(tmp_path, capsys):
    assert pack(tmp_path / "pack", 1) == 0
    assert size_of(tmp_path / "pack") == len(WHEEL)
    assert capsys.readouterr().out == "wheels: 0.0 MB, 1 for Python 3.12\ntotal: 0.0 MB of 1\n"


def test_a_data_set_that_fits_is_whole_and_smaller(tmp_path, source, capsys):
    assert pack(tmp_path / "pack", 1, "--data", "camvid", "--source", source) == 0
    data = tmp_path / "pack" / "data" / "camvid"
    assert ids(data) == ids(data, "labels") == {split: ids(source)[split] for split in SPLITS}
    assert (data / "classes.txt").read_text().split() == list(CLASSES)
    found = verify(gpu_pack.ImageSet(data, gpu_pack.Folder.open(section(data), data, ""), None, *SPLITS), workers=1)
    assert not found.problems
    name = "train007"
    label = np.array(Image.open(data / "labels/train" / f"{name}.png"))
    assert Image.open(data / "images/train" / f"{name}.jpg").size == label.shape[::-1] == (SIDE, SIDE * HEIGHT // WIDTH)
    large = np.array(Image.open(source / "labels/train" / f"{name}.png"))
    expected = np.where(large == VOID, 255, large)[1::2, 1::2]
    assert np.array_equal(label, expected) and (label[0, :2] == 255).all()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:-1] == [
        "  extra: 0 of 5 images; 5 left out, which no split names",
        "  test: 3 of 3 images",
        "  train: 40 of 40 images",
        "  val: 4 of 4 images",
    ]


def section(data):
    names = dict(zip(("train", "val", "test"), SPLITS, strict=True))
    return gpu_pack.Dataset(kind="folder", path=str(data), void=(255,), unlabeled=None, **names, size=None)


def test_small_images_are_not_enlarged(source, monkeypatch):
    monkeypatch.setattr(gpu_pack, "SIDE", 1000)
    pair = gpu_pack.shrunk("a", np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8))
    assert Image.open(gpu_pack.io.BytesIO(pair.image)).size == (WIDTH, HEIGHT)


def test_train_is_thinned_evenly_and_what_is_scored_on_is_kept(tmp_path, source, capsys, monkeypatch):
    monkeypatch.setattr(gpu_pack, "FEWEST", 8)
    assert pack(tmp_path / "whole", 1, "--data", "camvid", "--source", source) == 0
    megabytes = round(0.7 * size_of(tmp_path / "whole") / 1e6, 4)
    capsys.readouterr()
    for folder in ("one", "two"):
        assert pack(tmp_path / folder, megabytes, "--data", "camvid", "--source", source) == 0
    assert 0.9 * megabytes < size_of(tmp_path / "one") / 1e6 <= megabytes
    packed = ids(tmp_path / "one" / "data" / "camvid")
    assert packed == ids(tmp_path / "two" / "data" / "camvid")
    count = len(packed["train"])
    assert 8 < count < 40 and tuple(packed["train"]) == evenly_spaced(ids(source)["train"], count)
    assert (len(packed["val"]), len(packed["test"])) == (4, 3)
    assert f"  train: {count} of 40 images; {40 - count} left out for room, evenly spread\n" in capsys.readouterr().out


def test_what_is_scored_on_takes_half_of_the_room_at_most():
    def pairs(split, count):
        return [gpu_pack.Pair(f"{split}{place:02d}", b"i" * 90, b"l" * 10) for place in range(count)]

    splits = {"train": pairs("t", 40), "val": pairs("v", 20), "test": pairs("x", 60)}
    kept = gpu_pack.thinned(splits, 8000)
    assert {split: len(pairs) for split, pairs in kept.items()} == {"train": 40, "val": 10, "test": 30}
    assert [pair.name for pair in kept["val"]] == [f"v{place:02d}" for place in range(0, 20, 2)]


def test_images_without_a_label_and_a_missing_test_split_are_told(tmp_path, source, capsys):
    (source / "labels/train/train003.png").unlink()
    for kind in ("images", "labels"):
        gpu_pack.Path(source / kind / "test").rename(tmp_path / f"former {kind}")
    assert pack(tmp_path / "pack", 1, "--data", "camvid", "--source", source) == 0
    assert set(ids(tmp_path / "pack/data/camvid")) == {"train", "val"}
    assert "  train: 39 of 40 images; 1 left out, without labels\n" in capsys.readouterr().out


def test_the_environment_says_where_the_data_lie(tmp_path, source, monkeypatch):
    monkeypatch.setenv("RRN_CAMVID", str(source))
    assert pack(tmp_path / "pack", 1, "--data", "camvid") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pack", 0.001), "the wheels alone are 0.0 MB: give more --megabytes"),
        (
            ("pack", 0.004, "--data", "camvid", "--source", "source"),
            "0.0 MB are left for images beside the wheels, room for ",
        ),
        (
            ("pack", 1, "--data", "idd_lite"),
            "nowhere/shared/idd_lite: let --source, or RRN_IDD_LITE, name where idd_lite lies\n",
        ),
        (("pack", 1, "--data", "idd_lite", "--source", "source"), "train000.png has the value 11, but the classes are"),
        (("source", 1), "source is not empty: name a folder that is, or that does not exist\n"),
    ],
)
def test_refusals(tmp_path, source, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert pack(*arguments) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and said in told
    assert not (tmp_path / "pack").exists()


def test_what_git_would_track_is_refused(tmp_path, capsys):
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet")
    (repository / ".gitignore").write_text("/scratch/\n")
    assert pack(repository / "pack", 1) == 1
    assert capsys.readouterr().err == (
        f"error: git would track {repository.resolve() / 'pack'}, and wheels and other people's images must not get "
        "into it: name an ignored folder, such as scratch/pack, or one outside the repository\n"
    )
    assert pack(repository / "scratch" / "pack", 1) == 0


def test_a_package_that_is_not_locked(tmp_path):
    lock = tmp_path / "some.lock"
    lock.write_text("".join(f"{name}==1.0\n" for name in gpu_pack.PACKAGES[1:]))
    with pytest.raises(gpu_pack.PackError, match=r"^some\.lock has no version of annotated-types: lock them, or "):
        gpu_pack.requirements(lock)


def test_versions_are_those_of_the_lock_file():
    locked = gpu_pack.LOCK.read_text().splitlines()
    assert set(gpu_pack.requirements(gpu_pack.LOCK)) <= {line.partition(" ;")[0] for line in locked}


def test_pip_fetches_wheels_of_the_other_machine(tmp_path, monkeypatch):
    monkeypatch.undo()
    index, folder = tmp_path / "index", tmp_path / "wheels"
    index.mkdir()
    for tag in ("cp312-cp312-manylinux_2_28_x86_64", "cp311-cp311-manylinux_2_28_x86_64"):
        with zipfile.ZipFile(index / f"tiny-1.0-{tag}.whl", "w") as wheel:
            wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
            wheel.writestr("tiny-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    gpu_pack.download(["tiny==1.0"], folder)
    assert [path.name for path in folder.iterdir()] == ["tiny-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"]
    with pytest.raises(gpu_pack.PackError) as raised:
        gpu_pack.download(["tiny==1.0", "absent==2.0"], folder)
    said = str(raised.value)
    assert said.startswith("pip found no wheel of absent==2.0 for Python 3.12 on manylinux_2_28_x86_64 or older; ")
    assert "pip said:\nERROR: " in said
