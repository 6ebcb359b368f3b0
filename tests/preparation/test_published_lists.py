"""Published lists: fetched from their origin, checked, cached. RRN_SPLITS names a folder with the real ones."""

import hashlib
import json
import os
import socketserver
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from rrn.data import id_lists
from rrn.data.decoding import DataError
from rrn.preparation import published_lists
from rrn.preparation.published_lists import Published

REAL = os.environ.get("RRN_SPLITS", "")
real = pytest.mark.skipif(not REAL, reason="RRN_SPLITS does not name a folder of published lists")

IDS = ["2007_000032", "2008_000002", "2009_000007"]
ENTRY = Published(
    **{"kind": "voc", "protocol": "cps", "partition": "1of16", "role": "labeled", "count": 3},
    **{"repository": "some/where", "commit": "0123456789abcdef", "path": "lists/labeled.txt", "license": "MIT"},
    sha256=hashlib.sha256("".join(f"{name}\n" for name in IDS).encode()).hexdigest(),
)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder that stands for the origin of all lists."""
    folder = tmp_path / "mirror"
    monkeypatch.setenv("RRN_LISTS", str(folder))
    return folder


def put(folder, text, entry=ENTRY):
    path = folder / entry.repository / entry.commit / entry.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def test_a_list_is_fetched_once(tmp_path, mirror):
    put(mirror, "\n".join(IDS))
    assert published_lists.ids(ENTRY, tmp_path / "cache") == IDS
    put(mirror, "gone")
    assert published_lists.ids(ENTRY, tmp_path / "cache") == IDS
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["voc-cps-1of16-labeled.txt"]


def test_a_list_is_fetched_from_a_server(tmp_path, mirror, monkeypatch):
    put(mirror, "\n".join(IDS))
    handler = partial(SimpleHTTPRequestHandler, directory=str(mirror))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.delenv("RRN_LISTS")
        monkeypatch.setattr(published_lists, "ORIGIN", f"http://127.0.0.1:{server.server_address[1]}")
        assert published_lists.ids(ENTRY, tmp_path / "cache") == IDS
        server.shutdown()


@pytest.mark.parametrize(
    "text",
    [
        "\r\n".join(IDS),
        "\ufeff" + "\n".join(IDS),
        "\n\n".join(f"  {name}  " for name in IDS),
        "\n".join(f"JPEGImages/{name}.jpg SegmentationClass/{name}.png" for name in IDS),
        "\n".join(f"/images/train/{name}.png\t/segmentation/train/{name}_gtFine.png" for name in IDS),
        "\n".join(f"leftImg8bit/train/city/{name}_leftImg8bit.png" for name in IDS),
        "\n".join(f"JPEGImages\\{name}.JPG" for name in IDS),
    ],
    ids=["windows", "bom", "blanks", "pairs", "tabs", "cityscapes", "backslashes"],
)
def test_ids_are_read_however_a_list_is_written(tmp_path, mirror, text):
    put(mirror, text)
    assert published_lists.ids(ENTRY, tmp_path / "cache") == IDS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n".join(IDS[:2]), r"it has 2 ids of sha256 .*\.\.\., expected 3 of .*\.\.\.; delete it to fetch it again"),
        ("\n".join(IDS[::-1]), r"labeled.txt is not the list of some/where@.*: it has 3 ids of .*, expected 3 of"),
        ("", r"the list .*labeled.txt is empty"),
        ("\n".join([*IDS[:2], IDS[0]]), r"lists 1 ids twice: 2007_000032; remove the second ones"),
    ],
    ids=["count", "order", "empty", "twice"],
)
def test_another_list_is_refused_and_not_kept(tmp_path, mirror, text, message):
    put(mirror, text)
    with pytest.raises(DataError, match=message):
        published_lists.ids(ENTRY, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


OUTSIDE = [
    *("../x.jpg", "JPEGImages/../../x.jpg", "..", "a/..", "..\\x.jpg", "JPEGImages/x.jpg ../../x.png"),
    *("/etc/x.jpg", "/home/me/JPEGImages/x.jpg", "//server/share/x.jpg", "\\\\server\\x.jpg", "C:\\x.jpg", "C:/x.jpg"),
    *("file:///etc/x.jpg", "/etc/passwd"),
]
NAMELESS = ["JPEGImages/", "a\0b", "a\x1b[2Jb", "a\x0bb", "a\x0cb", "a\x1cb", "a\x85b", "a\u2028b", "a" * 256]


@pytest.mark.parametrize("line", [*OUTSIDE, *NAMELESS], ids=ascii)
def test_a_line_that_leads_out_of_the_data_set_is_named(tmp_path, line):
    path = tmp_path / "train.txt"
    path.write_bytes(f"{IDS[0]}\r\n\n{line}\n".encode())
    what = "leads out of the data set" if line in OUTSIDE else "names no image"
    with pytest.raises(DataError) as caught:
        id_lists.read_list(path, "")
    assert str(caught.value).startswith(f"{path}, line 3: {line[:255]!r} {what}; write ")


def test_a_list_that_is_no_text_is_named(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(DataError, match=r"train.txt is no UTF-8 text: .* byte 0xff"):
        id_lists.read_list(tmp_path / "train.txt", "")


def test_names_may_be_unusual(tmp_path):
    names = ["a b", "é ü", "...", "a..b", "a:b", "~x", "$(x)", "<b>", "日本"]
    (tmp_path / "train.txt").write_text("\n".join(names))
    assert id_lists.read_list(tmp_path / "train.txt", "") == names


def test_a_damaged_cache_is_named(tmp_path, mirror):
    put(mirror, "\n".join(IDS))
    published_lists.ids(ENTRY, tmp_path)
    path = tmp_path / ENTRY.file
    path.write_text("2007_000032\n")
    with pytest.raises(DataError, match=rf"{path} is not the list of .* it has 1 ids .*delete it to fetch it again"):
        published_lists.ids(ENTRY, tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"is no UTF-8 text; delete it"):
        published_lists.ids(ENTRY, tmp_path)


def test_no_network_says_what_to_do(tmp_path, mirror):
    message = r"cannot be fetched from file:///.*labeled.txt .*put it at .*voc-cps-1of16-labeled.txt, or name a folder"
    with pytest.raises(DataError, match=message):
        published_lists.ids(ENTRY, tmp_path / "cache")


def test_a_cache_that_cannot_be_written_says_so(tmp_path, mirror, monkeypatch):
    put(mirror, "\n".join(IDS))
    (tmp_path / "file").write_text("")
    assert published_lists.ids(ENTRY, tmp_path / "file" / "cache") == IDS  # a folder of lists needs no cache
    monkeypatch.delenv("RRN_LISTS")
    monkeypatch.setattr(published_lists, "ORIGIN", mirror.as_uri())
    with pytest.raises(DataError, match=r"cannot be written \(Not a directory\): let it .*\. Or name a folder that"):
        published_lists.ids(ENTRY, tmp_path / "file" / "cache")


def test_origins_are_public_repositories_at_a_commit(monkeypatch):
    monkeypatch.delenv("RRN_LISTS", raising=False)
    start = "https://raw.githubusercontent.com/some/where/0123456789abcdef/lists/labeled.txt"
    assert published_lists.address(ENTRY) == start
    for entry in published_lists.catalog():
        assert len(entry.commit) == 40 and len(entry.sha256) == 64


def test_partitions_are_found_by_name_and_by_number_of_labels():
    by_name, by_count = (published_lists.find("voc", "cps", name) for name in ("1of16", "662"))
    assert by_name == by_count
    assert {role: entry.count for role, entry in by_name.items()} == {"labeled": 662, "unlabeled": 9920}
    assert published_lists.find("voc", "u2pl", "662") != by_name
    assert published_lists.find("cityscapes", "u2pl", "186")["labeled"].count == 186


def test_every_partition_has_both_lists_and_covers_the_train_images():
    totals = {"voc": 10582, "cityscapes": 2975}
    for entry in published_lists.catalog():
        both = published_lists.find(entry.kind, entry.protocol, entry.partition)
        assert tuple(both) == published_lists.ROLES
        assert sum(part.count for part in both.values()) == totals[entry.kind]


@pytest.mark.parametrize(
    ("kind", "protocol", "partition", "message"),
    [
        ("voc", "cps", "661", r"partition '661': split.protocol: cps of voc has 1of16 \(662 labels\), 1of8 \(1323"),
        ("voc", "classic", "1of16", r"partition '1of16': split.protocol: classic of voc has 92 \(92 labels\), 183"),
        ("cityscapes", "classic", "92", r"classic has no lists for dataset.kind: cityscapes; there are classic of voc"),
        ("folder", "cps", "1of16", r"cps has no lists for dataset.kind: folder; .* and seeded for every data set"),
    ],
)
def test_what_does_not_exist_is_answered_by_what_does(kind, protocol, partition, message):
    with pytest.raises(DataError, match=message):
        published_lists.find(kind, protocol, partition)


@pytest.fixture
def origin(mirror):
    """All real lists, where their origin has them."""
    index = json.loads((Path(REAL) / "index.json").read_text())
    for entry in index:
        upstream = entry["upstream"]
        target = mirror / upstream["repository"] / upstream["commit"] / upstream["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((Path(REAL) / entry["file"]).read_bytes())
    return index


@real
def test_the_real_lists_pass(tmp_path, origin):
    paths = [path for kind in ("voc", "cityscapes") for path in published_lists.fetch_all(kind, tmp_path / "cache")]
    assert len(paths) == len(published_lists.catalog()) == len([e for e in origin if e["protocol"] != "common"])
    assert all(path.is_file() for path in paths)
    fine = set(published_lists.ids(published_lists.find("voc", "classic", "1464")["labeled"], tmp_path / "cache"))
    for protocol, share in {"cps": 93, "u2pl": 662}.items():
        labeled = published_lists.ids(published_lists.find("voc", protocol, "662")["labeled"], tmp_path / "cache")
        assert (len(labeled), len(fine.intersection(labeled))) == (662, share)


@real
def test_one_protocol_s_list_is_not_another_s(tmp_path, origin, mirror):
    cps, u2pl = (published_lists.find("voc", protocol, "662")["labeled"] for protocol in ("cps", "u2pl"))
    source = mirror / cps.repository / cps.commit / cps.path
    source.write_bytes((mirror / u2pl.repository / u2pl.commit / u2pl.path).read_bytes())
    with pytest.raises(DataError, match=r"is not the list of charlesCXK/TorchSemiSeg@5e0c29c02738"):
        published_lists.ids(cps, tmp_path / "cache")
