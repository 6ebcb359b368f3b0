"""What is left of source code without its comments and docstrings."""

import ast
import random
import shutil
import subprocess
import sys
from importlib.util import decode_source

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from rrn.runtime import source

CASES = {
    "comment": ("x = 1  # one\n# two\n    # three\ny = 2\n", "x = 1\ny = 2\n"),
    "marks for tools": (
        f"import a  # {'no' + 'qa'}: F401\nx = a()  # {'type: ' + 'ignore'}[call]\n",
        "import a\nx = a()\n",
    ),
    "first lines": ("#!/usr/bin/env python\n# -*- coding: utf-8 -*-\nx = 1", "x = 1\n"),
    "blank lines": ("\n\nx = 1\n\n\n  \ny = (\n\n    2\n\n)\n\n", "x = 1\ny = (\n    2\n)\n"),
    "hash in strings": ('x = \'#\', """\n# no\n""", r\'\\#\'  # yes\n', 'x = \'#\', """\n# no\n""", r\'\\#\'\n'),
    "hash in f-strings": ("x = f'#{y!r:#>{w}}#'  # '\n", "x = f'#{y!r:#>{w}}#'\n"),
    "lines of strings": ('x = """a  \n\n  # b\n"""  \n', 'x = """a  \n\n  # b\n"""\n'),
    "lines of f-strings": ("x = f'''a  \n\n{y}  \n\n'''  # b\n", "x = f'''a  \n\n{y}  \n\n'''\n"),
    "strings in brackets": ("x = (  # one\n    'a'  # two\n\n    'b'\n)\n", "x = (\n    'a'\n    'b'\n)\n"),
    "module": ('"""Of a module."""\n\nfrom __future__ import annotations\n', "from __future__ import annotations\n"),
    "nothing else": ('"""Of a package."""\n# and a comment', ""),
    "nothing": ("", ""),
    "function": ('def f():\n    """What.\n\n    Why.\n    """\n    return 1\n', "def f():\n    return 1\n"),
    "function of nothing else": ("@g  # h\ndef f():\n    '''What.'''  # a\n    # b\n", "@g\ndef f():\n    pass\n"),
    "coroutine": ('async def f():\n    """What."""\n    await g()\n', "async def f():\n    await g()\n"),
    "two strings": ("def f():\n    'a'\n    'b'\n", "def f():\n    pass\n"),
    "classes": (
        'class A:\n    """A."""\n\n    class B(A):\n        """B."""\n\n    b: B  # c\n    """Of b."""\n',
        "class A:\n    class B(A):\n        pass\n    b: B\n",
    ),
    "name": ('X = 1\n"""Of X,\nwhich is one."""\nY = 2\n', "X = 1\nY = 2\n"),
    "other literals": (
        "def f():\n    b'a'\n    f'b'\n    1\n    ...\n",
        "def f():\n    b'a'\n    f'b'\n    1\n    ...\n",
    ),
    "branches": ("if x:\n    'a'\nelse:\n    'b'\n    y\n", "if x:\n    pass\nelse:\n    y\n"),
    "handlers": (
        "try:\n    'a'\nexcept E:\n    'b'\nfinally:\n    'c'\n",
        "try:\n    pass\nexcept E:\n    pass\nfinally:\n    pass\n",
    ),
    "match": ("match x:\n    case 'a':\n        'b'\n", "match x:\n    case 'a':\n        pass\n"),
    "one line": ("def f(): 'a'\nclass A: 'b'; x = 1\n", "def f(): pass\nclass A: pass; x = 1\n"),
    "semicolons": ("'a'; x = '#'; 'b'  # c\n", "pass; x = '#'; pass\n"),
    "string after string": (
        "x = '''a  \nb'''; '''c\n\nd'''; y = '''e  \n\n'''\n",
        "x = '''a  \nb'''; pass; y = '''e  \n\n'''\n",
    ),
    "brackets": (
        "def f():\n    (  # a\n        'b'\n        # c\n        'd'\n    )  # e\n    g()\n",
        "def f():\n    g()\n",
    ),
    "joined": ("def f():\n    'a' \\\n    'b'\n    g()\n", "def f():\n    g()\n"),
    "backslash": ("x = 1 + \\\n    2  # a\n\nassert x, \\\n    'b'\n", "x = 1 + \\\n    2\nassert x, \\\n    'b'\n"),
    "backslash before nothing": ("x = 1 \\\n\ny = 2 \\\n    # a\nz = 3\n", "x = 1 \\\n\ny = 2 \\\n\nz = 3\n"),
    "backslash before a string": ("x = 1; \\\n'a'\ny = 2\n", "x = 1; \\\n\ny = 2\n"),
    "backslash in a comment": ("x = 1  # a \\\n\n# b \\\ny = 2\n", "x = 1\ny = 2\n"),
    "backslash in a string": ("x = '''a \\\n\nb'''\n\ny = 2\n", "x = '''a \\\n\nb'''\ny = 2\n"),
    "ends of lines": ("x = 1  # a\r\n\r\n'''b\r\nc'''\r\ny = '''d\r\n'''\r\n", "x = 1\ny = '''d\n'''\n"),
    "ends of lines of old": ("x = 1  # a\ry = 2\r", "x = 1\ny = 2\n"),
    "mark of an encoding": ("\ufeff'a'\nx = 'ä'\n", "x = 'ä'\n"),
    "letters of many bytes": ("é = 'ßß'; 'ü'; ä = '€'  # ö\n'ä'  # b\n", "é = 'ßß'; pass; ä = '€'\n"),
    "form feed": ("x = 1\n\f\n\f# a\ndef f():\n    'b'\f\n    return x  \f# c\n", "x = 1\ndef f():\n    return x\n"),
    "tabs": ("if x:\n\t'a'\t# b\n\ty\n", "if x:\n\ty\n"),
    "annotations": ("def f(x: 'A') -> 'B':  # c\n    x: 'D'\n", "def f(x: 'A') -> 'B':\n    x: 'D'\n"),
}


def meaning(text):
    """Return the tree of a source without strings that are statements, and without `pass`."""
    tree = ast.parse(text.removeprefix("\ufeff"))
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            if isinstance(block := getattr(node, name, None), list):
                setattr(node, name, [part for part in block if not idle(part)])
    return ast.dump(tree)


def idle(node):
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return text or isinstance(node, ast.Pass)


@pytest.mark.parametrize(("text", "left"), CASES.values(), ids=CASES)
def test_only_code_is_left_and_means_the_same(text, left):
    assert source.bare(text) == left
    assert meaning(left) == meaning(text)
    assert source.bare(left) == left


@pytest.mark.skipif(sys.version_info < (3, 12), reason="earlier versions end an f-string at its own quotes")
def test_strings_in_f_strings_stay():
    text = "x = f'''a  \n\n{f'''#  \n{y  # b\n}'''}  \n'''\n"
    assert source.bare(text + "  # c\n'd'\n") == text


PATHS = sorted([*(ROOT / "rrn").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_all_our_code_means_the_same(path):
    left = source.contents(path).decode()
    assert meaning(left) == meaning(path.read_text())
    assert source.bare(left) == left


LINES = ["", "   ", "\f", "# said", "        # said \\", "#: 'said", '# """']
BESIDE = ["", "  # said", "\t# '", "  # no" + "qa", "   ", "  # \\"]


@given(
    st.randoms(use_true_random=False),
    st.sampled_from(["rrn/runtime/source.py", "rrn/runtime/seeding.py", "rrn/runtime/atomic_io.py"]),
)
def test_remarks_do_not_matter(chance: random.Random, name):
    text = (ROOT / name).read_text()
    left = source.bare(text)
    remarked = []
    for line in left.splitlines():
        remarked += chance.choices(LINES, k=chance.choice([0, 0, 1, 2]))
        remarked.append(line + chance.choice(BESIDE))
        if line.startswith(("def ", "class ")) and line.endswith(":"):
            remarked += ['    """Said', "", "    # often", '    """  # said']
    assert source.bare("\n".join(remarked)) == left


PIECES = st.sampled_from(
    [*"x='\"#\\\n;: (){}[]", "\n", "\n    ", "'''", '"""', "f'", "r'", "{x}", "x = 1", "def f():", "'a'", "pass", "é"]
)


@given(st.lists(PIECES, max_size=14).map("".join))
def test_whatever_is_python_means_the_same(text):
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        with pytest.raises(SyntaxError):
            source.bare(text)
        return
    assert meaning(source.bare(text)) == meaning(text)


def test_files_are_read_as_python_reads_them(tmp_path):
    path = tmp_path / "a.py"
    path.write_bytes("# coding: latin-1\nx = 'ä'  # ö\r\n".encode("latin-1"))
    assert source.contents(path) == "x = 'ä'\n".encode()
    assert decode_source(path.read_bytes()).endswith("# ö\n")


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("a.csv", b"# no comment\r\n\r\n"),
        ("half.py", b"def f(:  # typed\n"),
        ("unknown.py", b"# coding: x\n"),
        ("bytes.py", b"x = '\xff'  # a\n"),
        ("nothing.py", b"x = 1\0  # a\n"),
    ],
)
def test_what_is_no_python_stays_as_it_is(tmp_path, name, held):
    (tmp_path / name).write_bytes(held)
    assert source.contents(tmp_path / name) == held


DIGEST = """
import hashlib, importlib.util, sys
spec = importlib.util.spec_from_file_location("source", sys.argv[1])
source = importlib.util.module_from_spec(spec)
spec.loader.exec_module(source)
print(hashlib.sha256(repr([source.bare(text) for text in eval(sys.stdin.read())]).encode()).hexdigest())
"""


def digest(program, texts):
    command = [program, "-I", "-c", DIGEST, str(ROOT / "rrn" / "runtime" / "source.py")]
    return subprocess.run(command, input=repr(texts), capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_versions_of_python_agree(version):
    program = shutil.which(f"python{version}") or ""
    runs = program and subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode == 0
    if not runs or version == f"{sys.version_info.major}.{sys.version_info.minor}":
        pytest.skip(f"there is no other Python, {version}, here")
    texts = [text for text, _ in CASES.values()] + [path.read_text() for path in PATHS]
    assert digest(program, texts) == digest(sys.executable, texts)
