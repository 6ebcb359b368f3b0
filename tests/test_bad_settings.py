"""Whatever stands in params.yaml: a valid run, or one clear error that names the setting; nothing else, nothing silent.

`RRN_FUZZ=5000 pytest tests/test_bad_settings.py` draws that many examples of each property, new ones each time.
"""

import copy
import math
import os
import re
import string
from functools import partial

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given
from hypothesis import settings as drawn
from hypothesis import strategies as st

from rrn import config
from rrn.config import SettingsError
from rrn.pipeline import presets

EXAMPLES = int(os.environ.get("RRN_FUZZ", "0"))
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
VALUES = config.read(ROOT / "params.yaml")
ROWS = list(VALUES["methods"])


def examples(count):
    """Return how a property is tried: the same `count` examples each time, or as many new ones as RRN_FUZZ says."""
    return drawn(
        max_examples=EXAMPLES or count,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def paths(values, above=()):
    """Yield where each section and each value stands, as its keys."""
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths(value, (*above, key))


PATHS = list(paths(VALUES))
SETTINGS = [path for path in PATHS if path[0] != "methods"]

SPECIAL = [
    *(None, True, False, 0, 1, -1, 2, 7, 8, 255, 256, 2**31 - 1, 2**31, 2**63, 10**30, -(10**30), 10**400, 1 << 3000),
    *(0.0, -0.0, 0.5, 1.0, 8.0, 1e-308, 1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan),
    *("", " ", "on", "null", "1", "0.5", "1e3", "all", "1of16", "1of0", "0of1", "1/16", "9" * 400, "1of٣", "cuda:٣"),
    *("none", "rrn", "val", "train", "cpu", "cuda:99999999999999999999", "sliding", "..", "../x", "a/b", "a\\b", ".x"),
    *("\0", "a\nb", "a\n", "\ud800", "é", "😀", "\u202eabc", "a b", "x" * 5000, "~", "/", "-", "$(true)", "${name}"),
    *([], [[]], [None], [1], [1, 1], [1, 2], [2, 1], [0.5, 0.25], [1, 2, 3], ["a"], [[1, 2], [3]], [True, False]),
    *({}, {"a": 1}, {"": None}, {"by": "none"}, {"steps": 3, "lr_ramp": 0}),
]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
nested = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
anything = st.sampled_from(SPECIAL) | nested


def laid(path, value, values=VALUES):
    """Return the settings with one value changed."""
    result = copy.deepcopy(values)
    at(result, path[:-1])[path[-1]] = value
    return result


def at(values, path):
    """Return what stands at a path."""
    for key in path:
        values = values[key]
    return values


def refused(act, *names):
    """Return the message of a refusal, which is short and names what is wrong; or None, and what `act` returned."""
    try:
        return None, act()
    except SettingsError as error:
        text = str(error)
    assert len(text) < 6000 and all(line.isprintable() and line.strip() for line in text.splitlines()), text
    assert any(name in text for name in names), (names, text)
    return text, None


def same(found, given):
    """Say whether a setting has the value that was given; partitions are texts, and a list may be a tuple."""
    if isinstance(given, list):
        return len(found) == len(given) and all(map(same, found, given))
    if isinstance(given, dict):
        return all(same(found[key], value) for key, value in given.items())
    return found == given or (found == str(given) and not isinstance(given, float | bool))


# ---- values


@given(st.sampled_from(PATHS), anything, st.sampled_from([None, *ROWS]))
@examples(400)
def test_any_value_anywhere_comes_back_or_is_refused_by_name(path, value, row):
    values = laid(path, value)
    text, settings = refused(lambda: config.resolve(values, row), path[-1])
    if text is None and path[0] not in ("method", "methods"):
        assert same(at(settings.model_dump(), path), value)
    if text is None and path[0] == "methods" and len(path) > 2:
        assert same(at(config.resolve(values, path[1]).method.model_dump(), path[2:]), value)
    if text is None and path[0] == "method":
        assert same(at(config.resolve(values).model_dump(), path), value)


NUMBERS = [path for path in SETTINGS if isinstance(at(VALUES, path), int | float)]
NUMBERS.remove(("model", "output_stride"))  # one of two, and 16.0 is 16


@pytest.mark.parametrize("path", NUMBERS, ids=".".join)
def test_no_number_is_made_of_another_kind_of_value(path):
    value = at(VALUES, path)
    others = [1, "true"] if isinstance(value, bool) else [True, str(value)]
    for other in [*others, *([float(value)] if isinstance(value, int) else [])]:
        text, _ = refused(partial(config.resolve, laid(path, other)), path[-1])
        assert text is not None, other


@given(st.sampled_from(SETTINGS), anything, st.sampled_from([None, *ROWS]))
@examples(200)
def test_an_override_is_what_the_file_would_be(path, value, row):
    override = value
    for key in reversed(path):
        override = {key: override}
    text, settings = refused(lambda: config.resolve(VALUES, row, override), path[-1], *map(str, override))
    if text is None:
        assert same(at(settings.model_dump(), path), value)


options = {key: st.just(value) for key, value in VALUES["method"].items() if not isinstance(value, dict)}
choices = {
    "labels": ["partition", "all"],
    "teacher_statistics": ["batch", "running"],
    "rho": ["none", "product", "mean", "votes", "agreement", "divergence"],
    "by": ["none", "region_score", "confidence", "random"],
    "keep": ["threshold", "fraction"],
    "objective": ["adversarial", "accuracy"],
    "maps": ["soft", "hard"],
    "grid": [1, 2, 3, 4, 8, 16],
    "input_stride": [1, 2, 4],
    "channels": [[8], [8, 8], [8, 8, 8]],
}


def some(section):
    """Return what may stand in a row: some keys of a section, mostly with values of their kind."""
    inside = {}
    for key, value in section.items():
        usual = some(value) if isinstance(value, dict) else st.sampled_from(choices.get(key, [value]))
        usual = st.booleans() if isinstance(value, bool) else usual
        inside[key] = usual | usual | usual | usual | anything
    return st.fixed_dictionaries({}, optional=inside)


@given(some(VALUES["method"]))
@examples(250)
def test_a_row_holds_what_it_says_and_every_other_row_stays(row):
    values = laid(("methods", "mine"), row)
    text, settings = refused(lambda: config.resolve(values, "mine"), "methods.mine")
    if text is None:
        assert same(settings.method.model_dump(), row)
        for other in ROWS:
            assert config.resolve(values, other).method == config.resolve(VALUES, other).method


# ---- words

WRONG = [None, True, False, "x-y z", "1of4", "8", "no", "", "a/b", -1, 0, 3, 512, 2**31, 1.5, -0.5, 1e9, math.nan]
WRONG += [[], [512], [1, 2, 3, 4], ["8"], [None], [[1]], {}, {"a": 1}]
JARGON = re.compile(
    r"valid|pattern|tuple|Input should|String should|\^\[|pydantic|\\x00|"
    r"\b(int|str|float|bool|dict|NoneType|None|True|False|literal|decimal|JSON|NaN)\b"
)
"""What is a programmer's word, and what none but a program can read."""


@pytest.mark.parametrize("path", SETTINGS, ids=".".join)
def test_a_wrong_value_is_answered_with_its_key_what_was_given_and_what_would_do(path):
    told = [refused(partial(config.resolve, laid(path, wrong)), path[-1])[0] or "" for wrong in WRONG]
    for line in "\n".join(filter(None, told)).splitlines():
        assert not JARGON.search(line), line
        assert re.search(r": expected .{4,}|: no partition: |; \w|must be \[|is a section with keys", line), line


MENDED = [
    (
        "name",
        "my-data",
        "name is 'my-data': expected letters, digits, _ and . (at most 64, a letter or digit first): my_data",
    ),
    ("name", "-new run!", "a letter or digit first): new_run_"),
    ("name", 2024, "a letter or digit first): '2024'"),
    ("ablation.partitions", "1of4", "ablation.partitions is '1of4': expected a list: [1of4]"),
    ("ablation.partitions", 662, "ablation.partitions is 662: expected a list: [662]"),
    ("ablation.seeds", 3, "ablation.seeds is 3: expected a list: [3]"),
    ("ablation.methods", "rrn", "ablation.methods is 'rrn': expected a list: [rrn]"),
    ("dataset.size", 512, "dataset.size is 512: expected a list: [512, 512]"),
    ("dataset.size", [512], "dataset.size is [512]: expected a list: [512, 512]"),
    ("dataset.size", ["512", 512], "dataset.size.0 is '512': expected a whole number from 1 to 65535: 512"),
    (
        "dataset.size",
        "none",
        "dataset.size is 'none': expected a list of 2, each a whole number from 1 to 65535, or null: null",
    ),
    ("dataset.void", 255, "dataset.void is 255: expected a list: [255]"),
    ("dataset.void", 300, "dataset.void is 300: expected a list, each a whole number from 0 to 255, or null"),
    ("dataset.exif", "Apply", "dataset.exif is 'Apply': expected refuse, apply or ignore: apply"),
    ("dataset.classes", "car", "car: [car, truck]}, or null"),
    (
        "dataset.classes",
        {"a": "b", "c": ["*"]},
        "'a' is 'b': expected a list of names or label values of the data set, such as [car, truck]",
    ),
    ("dataset.train", 2012, "with no dot first: '2012'"),
    ("model.atrous_rates", 6, "model.atrous_rates is 6: expected a list: [6, 6, 6]"),
    ("model.output_stride", "16", "model.output_stride is '16': expected 8 or 16: 16"),
    ("model.output_stride", 12, "model.output_stride is 12: expected 8 or 16"),
    ("precision", "BF16", "precision is 'BF16': expected fp32, bf16 or fp16: bf16"),
    ("device", "mps", "device is 'mps': expected auto, cpu or cuda (or cuda:0, one GPU of several)"),
    ("augment.flip", "yes", "augment.flip is 'yes': expected true or false: true"),
    ("augment.flip", 0, "augment.flip is 0: expected true or false: false"),
    ("evaluate.scales", 1.0, "evaluate.scales is 1.0: expected a list: [1.0]"),
    ("cutmix.area", [], "cutmix.area is []: expected a list of 2, each a number from 0 to 1"),
    ("optimizer.lr", "1e-3", "optimizer.lr is '1e-3': expected a number above 0: 0.001"),
    ("train.steps", 3e4, "train.steps is 30000.0: expected a whole number from 1 to 2147483647: 30000"),
    (
        "methods.a b",
        {},
        "methods has a row 'a b': expected letters, digits, _ and . (at most 64, a letter or digit first): a_b",
    ),
    ("method.strong", True, "is true: expected a section with keys ['blur', 'gray', 'jitter', 'views'], or null"),
    ("method.strong", "off?", "is 'off?': expected a section with keys ['blur', 'gray', 'jitter', 'views'], or null"),
    ("method.strong", "none", "expected a section with keys ['blur', 'gray', 'jitter', 'views'], or null: null"),
    ("method.strong", {"grey": 0.2}, "no setting 'method.strong.grey'; did you mean 'gray'?"),
    ("method.strong", {"gray": 1.5}, "method.strong.gray is 1.5: expected a number from 0 to 1"),
    ("method.strong", {"views": 3}, "method.strong.views is 3: expected a whole number from 1 to 2"),
    ("method.strong", {"views": "2"}, "method.strong.views is '2': expected a whole number from 1 to 2: 2"),
    ("optimizer.kind", "AdamW", "optimizer.kind is 'AdamW': expected sgd or adamw: adamw"),
    ("methods.mine", None, "methods.mine is null: expected what the row changes of method, in braces: {}"),
    ("methods", {}, "methods is {}: expected rows, each a name and what it changes of method"),
]


@pytest.mark.parametrize(("key", "wrong", "message"), MENDED, ids=lambda value: str(value)[:20])
def test_what_was_perhaps_meant_is_named_in_one_line(key, wrong, message):
    text, _ = refused(partial(config.resolve, laid(key.split("."), wrong)), message)
    assert text is not None and text.count("\n") == 0 and (text.endswith(message) or not wrong), text


# ---- keys

letters = st.text(string.ascii_lowercase, min_size=1, max_size=2)


@given(st.sampled_from([(), *(path for path in PATHS if isinstance(at(VALUES, path), dict))]), st.text(), anything)
@examples(150)
def test_an_unknown_key_anywhere_is_refused(section, key, value):
    section = section if section != ("methods",) else ()
    known = at(VALUES, ("method", *section[2:]) if section[:1] == ("methods",) else section) or at(VALUES, section)
    if key in known:
        return
    text, _ = refused(lambda: config.resolve(laid((*section, key), value)), "no setting")
    assert text is not None


LATER = [
    *(("dataset", "scenes"), ("log", "regions"), ("optimizer", "kind"), ("optimizer", "head"), ("method", "strong")),
    *(("dataset", "classes"), ("dataset", "exif"), ("log", "tensorboard"), ("method", "warmup")),
    *(("method", "filter", "per"), ("method", "filter", "floor")),
    *(("method", "labels_from"), ("method", "teacher"), ("method", "teacher_decay"), ("method", "networks")),
    *(("method", "negative"), ("model", "second"), ("optimizer", "layer_decay")),
    *(("method", "discriminator", key) for key in ("network", "answers_of", "cutmix", "wrong_weight", "pretrain")),
]
"""Settings that earlier versions had not: where one is missing, it has the value that changes nothing."""
NEEDED = [path for path in SETTINGS if path not in LATER]


@given(st.sampled_from([path for path in NEEDED if len(path[-1]) > 4]), st.data())
@examples(100)
def test_a_misspelled_key_is_refused_and_the_right_one_named(path, data):
    key, place = path[-1], data.draw(st.integers(1, len(path[-1]) - 1))
    wrong = data.draw(st.sampled_from([key[:place] + key[place + 1 :], key[:place] + "x" + key[place:]]))
    values = copy.deepcopy(VALUES)
    section = at(values, path[:-1])
    if wrong in section:
        return
    section[wrong] = section.pop(key)
    text, _ = refused(lambda: config.resolve(values), wrong)
    assert f"did you mean {key!r}?" in text
    assert f"{'.'.join(path)} is missing" in text


@pytest.mark.parametrize("path", NEEDED, ids=".".join)
def test_a_missing_key_is_named(path):
    values = copy.deepcopy(VALUES)
    del at(values, path[:-1])[path[-1]]
    text, _ = refused(lambda: config.resolve(values), f"params.yaml: {'.'.join(path)} is missing")
    assert text is not None


def test_settings_of_earlier_versions_say_what_these_did():
    values = copy.deepcopy(VALUES)
    later = {path[1] for path in LATER if path[0] == "method" and len(path) == 2}
    values["methods"] = {row: changes for row, changes in values["methods"].items() if not later & set(changes)}
    values["log"]["regions"] = None
    expected = config.resolve(values, "rrn")
    for path in LATER:
        del at(values, path[:-1])[path[-1]]
    found = config.resolve(values, "rrn")
    assert found == expected
    assert (found.optimizer.kind, found.optimizer.head, found.method.strong) == ("sgd", 1.0, None)


# ---- text


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("settings")
    (folder / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    return folder


def load(root, text):
    """Return the settings of a text."""
    text = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    (root / "params.yaml").write_bytes(text)
    return config.load(root=root)


odd = st.sampled_from(
    [
        *("\t", "\0", "\ufeff", "\ud800", "\x85", "\u2028", "[", "{", "}", "- ", "? ", ": ", "'", '"', "#", "|\n"),
        *("&a ", "*a", "<<: ", "!!", "! ", "%YAML 1.1\n---\n", "---\n", "...\n", "0x", "0o7", "1e9999", "2001-99-99"),
        *("!!bool x", "!!int ''"),
    ]
)


@given(st.lists(st.tuples(st.integers(0, len(TEXT)), odd | st.text(max_size=5), st.integers(0, 40)), max_size=3))
@examples(40)
def test_any_text_is_settings_or_is_refused(root, changes):
    text = TEXT
    for place, inserted, removed in changes:
        text = text[:place] + inserted + text[place + removed :]
    refused(lambda: load(root, text), "params.yaml")


@given(st.binary(max_size=60) | st.text(max_size=60))
@examples(150)
def test_any_bytes_are_refused(root, text):
    message, _ = refused(lambda: load(root, text), "params.yaml")
    assert message is not None


BOMB = "".join(f"l{i}: &l{i} [{', '.join(10 * [f'*l{i - 1}'] if i else ['x'])}]\n" for i in range(12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "params.yaml: expected keys and values, found none"),
        ("- 1\n", "params.yaml: expected keys and values, found [1]"),
        (b"name: \xff\n", "params.yaml is no UTF-8 text ('utf-8' codec can't decode byte 0xff"),
        ("name: [1\n", "params.yaml is not valid YAML: line 2, column 1: while parsing a flow sequence, expected ','"),
        (
            "name: a\nname: b\n",
            'is not valid YAML: line 2, column 1: while constructing a mapping, found duplicate key "',
        ),
        ("name: a\n---\nname: b\n", "line 2, column 1: expected a single document in the stream, but found another"),
        ("name: \0\n", "is not valid YAML: a value is none of its kind: unacceptable character #x0000"),
        ("name: 2001-99-99\n", "is not valid YAML: a value is none of its kind: month must be in 1..12"),
        ("name: 2001-09-09\n", "params.yaml: name is datetime.date(2001, 9, 9): expected letters, digits, _ and ."),
        ("name: !!binary aGk=\n", "params.yaml: name is b'hi': expected letters, digits, _ and ."),
        ("name: !!python/name:os.system x\n", "line 1, column 7: could not determine a constructor for the tag"),
        ("threads: " + 5000 * "9" + "\n", "none of its kind: Exceeds the limit (4300 digits)"),
        ("threads: 0x" + 5000 * "f" + "\n", "params.yaml: threads is a number of 20000 bits: expected a whole number"),
        ("train: {1: 2}\n", "params.yaml: train has the key 1, which is no text; put it in quotes"),
        ("name: " + 3000 * "[" + 3000 * "]", "params.yaml is not valid YAML: nested too deeply"),
        ("name: " + 30 * "[" + 30 * "]", "params.yaml: name is [[[...]]]: expected letters, digits"),
        ("train: &a {b: *a}\n", "params.yaml: no setting 'train.b'; there are lr_ramp, steps"),
        (BOMB, "params.yaml: name is missing: expected letters, digits"),
    ],
    ids=lambda value: str(value[:12]),
)
def test_a_text_that_is_no_settings_is_refused_with_its_place(root, text, message):
    with pytest.raises(SettingsError) as caught:
        load(root, text)
    assert message in str(caught.value)


def test_yaml_1_2_is_taken_as_dvc_takes_it(root):
    text = (
        TEXT.replace("threads: 1 ", "threads: 010 ").replace("lr: 0.1", "lr: 1e-1").replace("seed: null", "seed: 0o10")
    )
    settings = load(root, "\ufeff" + text.replace("flip: true", "flip: &yes true").replace("flip: false", "flip: *yes"))
    assert (settings.threads, settings.optimizer.lr, settings.split.seed) == (10, 0.1, 8)
    assert settings.augment.flip and settings.evaluate.flip
    with pytest.raises(SettingsError, match=r"augment.flip is 'on': expected true or false: true"):
        load(root, TEXT.replace("flip: true", "flip: on"))


def test_a_folder_in_place_of_the_file(tmp_path):
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(SettingsError, match=r"params.yaml cannot be read: .*Is a directory"):
        config.load(root=tmp_path)


# ---- the command line

written = st.sampled_from(
    ["", "null", "on", "0x10", "1_000", "!!str 5", "&a true", "1e3", "'a b'", "[1, 2]", "{a: 1}", "2001-01-01"]
)


@given(st.sampled_from(PATHS).map(".".join) | st.text(max_size=10), written | st.text(max_size=10) | anything.map(repr))
@examples(25)
def test_what_a_preset_writes_is_what_was_asked_for(root, key, text):
    (root / "params.yaml").write_text(TEXT, encoding="utf-8")
    message, after = refused(lambda: presets.apply(root, [f"{key}={text}"]), "")
    if message is None:
        key = f"{key}={text}".partition("=")[0]
        value = config.parse(f"{key}={text}".partition("=")[2], "")
        assert same(at(config.parse(after, ""), key.split(".")), value)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("threads=&a true", "params.yaml: threads is true: expected a whole number from 1 to 1024"),
        ("threads=!!bool x", "threads: '!!bool x' is not valid YAML: a value is none of its kind: 'x'"),
        ("name=2001-01-01", "params.yaml: name is datetime.date(2001, 1, 1): expected letters, digits, _ and ."),
    ],
)
def test_the_command_line_is_read_as_the_file_will_be(root, item, message):
    (root / "params.yaml").write_text(TEXT, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        presets.apply(root, [item])
    assert message in str(caught.value)
