"""Nothing that rrn loads can execute code: its source is searched for every way to do so."""

import ast

import pytest
from conftest import ROOT

UNPICKLE = {"pickle", "_pickle", "cPickle", "pickletools", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
"""Modules that run what a file says; their exceptions may be named through another module, nothing may be called."""
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {"read_pickle", "to_pickle", "system", "popen", "unsafe_load", "full_load"}
SAFE_LOADERS = {"load", "load_state_dict_from_file", "load_state_dict_from_url", "get_state_dict"}
"""Functions that unpickle unless `weights_only=True` is said."""


def dotted(node):
    """Return a.b.c of an attribute, `?` in place of what is no name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def given(call, name):
    """Return the literal value of a keyword of a call; None if it has none."""
    values = [keyword.value for keyword in call.keywords if keyword.arg == name]
    return values[0].value if values and isinstance(values[0], ast.Constant) else None


def wrong(text):
    """Yield the number of every line that could run what a file says, and why."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            if UNPICKLE.intersection(part for name in names for part in name.split(".")):
                yield node.lineno, "imports what unpickles"
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        *before, last = name.split(".")
        if UNPICKLE.intersection(before) or name.removeprefix("builtins.") in BUILTINS or last in CALLS:
            yield node.lineno, f"calls {name}"
        if (name == "torch.load" or last in SAFE_LOADERS - {"load"}) and given(node, "weights_only") is not True:
            yield node.lineno, f"{name} without weights_only=True"
        if before and before[0] in ("np", "numpy") and given(node, "allow_pickle"):
            yield node.lineno, f"{name} with allow_pickle"
        if name == "yaml.load":
            yield node.lineno, "calls PyYAML, which can make objects"
        if last == "YAML" and given(node, "typ") not in (None, "safe", "rt"):
            yield node.lineno, "reads YAML that makes objects"
        if any(keyword.arg in ("shell", "pickle_module") for keyword in node.keywords):
            yield node.lineno, f"{name} with shell or pickle_module"


@pytest.mark.parametrize("path", sorted((ROOT / "rrn").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_loaded_can_run_code(path):
    assert not list(wrong(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "line",
    [
        *(f"import {name}" for name in sorted(UNPICKLE)),
        *(
            "from pickle import load",
            "from os import pickle",
            "import a.pickle as b",
            "torch.serialization.pickle.loads(x)",
        ),
        *(
            "torch.load(x)",
            "torch.load(x, weights_only=False)",
            "torch.load(x, weights_only=flag)",
            "torch.load(x, **more)",
        ),
        *("load_state_dict_from_url(x)", "hub.load_state_dict_from_file(x)", "member.get_state_dict(check_hash=True)"),
        *(
            "np.load(x, allow_pickle=True)",
            "pd.read_pickle(x)",
            "frame.to_pickle(x)",
            "yaml.unsafe_load(x)",
            "yaml.load(x)",
        ),
        *(
            "YAML(typ='unsafe')",
            "eval(x)",
            "exec(x)",
            "compile(x, y, z)",
            "__import__(x)",
            "os.system(x)",
            "os.popen(x)",
        ),
        *("subprocess.run(x, shell=True)", "torch.load(x, weights_only=True, pickle_module=y)", "yaml.full_load(x)"),
    ],
)
def test_the_search_finds(line):
    assert list(wrong(line))


def test_the_search_leaves_alone():
    fine = [
        "torch.load(x, weights_only=True)",
        "np.load(x)",
        "YAML(typ='safe', pure=True).load(x)",
        "model.eval()",
        "model().eval()",
    ]
    assert not [line for line in [*fine, "re.compile(x)", "YAML()"] if list(wrong(line))]
