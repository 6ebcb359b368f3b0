import json

import nbformat

from rrn.pipeline import strip


def executed(path):
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "mine", "display_name": "m"}})
    cell = nbformat.v4.new_code_cell("seed = 1", metadata={"tags": ["parameters"], "scrolled": True})
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


def test_wrong_usage_is_explained(capsys):
    assert strip.main([]) == 2
    assert "python -m rrn.strip SOURCE TARGET" in capsys.readouterr().err
