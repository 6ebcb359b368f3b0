import json
import shutil

import nbformat
import pytest
from conftest import ROOT, git

from rrn.pipeline import strip
from rrn.runtime import atomic_io, source


def executed(path):
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "mine", "display_name": "m"}})
    cell = nbformat.v4.new_code_cell("seed = 1", metadata={"tags": ["parameters"], "scrolled": True, "init_cell": True})
    cell.execution_count = 3
    cell.outputs = [nbformat.v4.new_output("stream", text="hello")]
    book.cells = [nbformat.v4.new_markdown_cell("# Question"), cell]
    nbformat.write(book, path)


def test_copies_are_the_same_whatever_was_run(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    executed(source / "a.ipynb")
    assert strip.main([str(source), str(target)]) == 0
    text = (target / "a.ipynb").read_text()
    assert strip.canonical(text) == text
    cell = json.loads(text)["cells"][1]
    assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert cell["metadata"] == {"tags": ["parameters"]}
    assert cell["id"] == "cell-001"


def test_check_names_the_notebook_and_the_remedy(tmp_path, capsys):
    executed(tmp_path / "a.ipynb")
    assert strip.main(["--check", str(tmp_path)]) == 1
    assert f"python -m rrn.strip {tmp_path} {tmp_path}" in capsys.readouterr().out
    assert strip.main([str(tmp_path), str(tmp_path)]) == 0
    assert strip.main(["--check", str(tmp_path)]) == 0


@pytest.mark.parametrize("arguments", [[], ["--check"], ["a", "b", "c"]])
def test_wrong_usage_is_explained(capsys, arguments):
    assert strip.main(arguments) == 2
    assert "python -m rrn.strip SOURCE TARGET" in capsys.readouterr().err


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Copies of notebooks/ and rrn/, as they lie here, in which the test runs."""
    for name in ("notebooks", "rrn"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_of_the_package_that_git_has_is_copied(repository):
    assert strip.main(["build"]) == 0
    listed = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "rrn", "notebooks").split()
    copied = files(repository / "build")
    assert set(copied) == {name for name in listed if (ROOT / name).is_file()}
    for name in copied:
        if name.startswith("rrn/"):
            assert copied[name] == source.contents(ROOT / name)


def test_what_is_no_code_is_not_copied_and_what_is_gone_goes(repository):
    strip.main(["build"])
    before = files(repository / "build")
    for name in ("rrn/__pycache__/a.pyc", "rrn/data/.a.py", "rrn/notes.txt", "rrn/gone.py", "notebooks/gone.txt"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("1")
    executed(repository / "notebooks" / "gone.ipynb")
    strip.main(["build"])
    assert files(repository / "build").keys() - before.keys() == {"rrn/gone.py", "notebooks/gone.ipynb"}
    (repository / "rrn" / "gone.py").unlink()
    (repository / "notebooks" / "gone.ipynb").unlink()
    strip.main(["build"])
    assert files(repository / "build") == before


def test_remarks_change_no_copy_and_code_one(repository):
    strip.main(["build"])
    before = files(repository / "build")
    path = repository / "rrn" / "method.py"
    path.write_text("# said\n" + path.read_text().replace('"""', '"""Said. ', 1))
    strip.main(["build"])
    assert files(repository / "build") == before
    path.write_text(path.read_text() + "more = 1\n")
    strip.main(["build"])
    after = files(repository / "build")
    assert {name for name in after if after[name] != before[name]} == {"rrn/method.py"}


def test_copies_are_whole_or_absent(repository, monkeypatch):
    strip.main(["build"])
    before = files(repository / "build")
    calls = iter(range(5))

    def killed(path):
        if next(calls) == 4:
            raise KeyboardInterrupt
        return b""

    monkeypatch.setattr(strip.source, "contents", killed)
    with pytest.raises(KeyboardInterrupt):
        strip.main(["build"])
    assert files(repository / "build") == before
    (repository / "build" / ".rrn.part").mkdir()  # as one leaves it that is killed at once
    (repository / "build" / ".rrn.part" / "old.py").touch()
    with atomic_io.folder(repository / "build" / "rrn") as folder:
        (folder / "new.py").touch()
    assert [path.name for path in (repository / "build" / "rrn").iterdir()] == ["new.py"]
