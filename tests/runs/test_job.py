"""What a resume must find unchanged: the contents of files, and the code."""

import shutil

import torch
from conftest import ROOT

from rrn.runs import job


def test_a_digest_depends_on_what_a_file_holds(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    digest = job.digest(path)
    assert len(digest) == 12 and digest == job.digest(path)
    path.write_bytes(b"2")
    assert digest != job.digest(path)


def test_the_code_is_all_source_of_the_package_without_remarks_and_the_version_of_torch(tmp_path, monkeypatch):
    assert job.PACKAGE == ROOT / "rrn"
    monkeypatch.setattr(job, "PACKAGE", shutil.copytree(ROOT / "rrn", tmp_path / "rrn"))
    found = [job.code()]
    path = tmp_path / "rrn" / "runtime" / "seeding.py"
    for text in (f'"""Other words."""\n# and more\n{path.read_text()}\n# at the end', path.read_text() + "more = 1\n"):
        path.write_text(text)
        found.append(job.code())
    assert found[0] == found[1] != found[2]
    assert {one["torch"] for one in found} == {torch.__version__}
