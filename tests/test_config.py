import pytest
from tiny import PARAMS, params, repository, write_params

from rrn import config
from rrn.config import SettingsError

ROWS = list(config.read(PARAMS)["methods"])


def refusal(changes, row=None):
    """Return the message that settings with `changes` in params.yaml get."""
    return refusal_of(_deep(params(), changes), row)


def refusal_of(values, row=None):
    """Return the message that the values of params.yaml get."""
    with pytest.raises(SettingsError) as caught:
        config.resolve(values, row)
    return str(caught.value)


def _deep(base, over):
    result = dict(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict) and value
        result[key] = _deep(result[key], value) if nested else value
    return result


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_repository_loads(row, root):
    settings = config.load(row, root=root)
    assert settings.method.uses_discriminators == (settings.method.filter.by != "none")
    assert settings.region * settings.method.grid == settings.augment.crop


def test_the_rows_that_the_paper_needs_are_there(root):
    rows = {row: config.load(row, root=root).method for row in ROWS}
    assert not rows["supervised"].consistency and rows["supervised_all"].labels == "all"
    assert not rows["cps"].cutmix and rows["cps_cutmix"].cutmix
    assert [rows[name].filter.by for name in ("cps_cutmix", "local_filter", "rrn")] == ["none"] + 2 * ["region_score"]
    assert (rows["local_filter"].rho, rows["rrn"].rho != "none") == ("none", True)
    assert {rows[f"{by}_filter"].filter.by for by in ("confidence", "random")} == {"confidence", "random"}


@pytest.mark.parametrize("preset", ["smoke", "camvid", "camvid_controls", "lite0", "controls"])
def test_every_row_of_every_preset_loads(preset, root):
    values = config.merge(config.read(PARAMS), config.read(root / "presets" / f"{preset}.yaml"))
    for row in values["methods"]:
        config.resolve(values, row)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devise": "cpu"}, "params.yaml: no setting 'devise'; did you mean 'device'?"),
        ({"train": {"step": 3}}, "params.yaml: no setting 'train.step'; did you mean 'steps'?"),
        (
            {"method": {"filter": {"fractoin": 0.5}}},
            "params.yaml: no setting 'method.filter.fractoin'; did you mean 'fraction'?",
        ),
        (
            {"methods": {"rrn": {"filtre": {"by": "random"}}}},
            "params.yaml has no setting 'methods.rrn.filtre'; did you mean 'filter'?",
        ),
        (
            {"methods": {"rrn": {"filter": "random"}}},
            "params.yaml: methods.rrn.filter is a section with keys "
            "['by', 'floor', 'fraction', 'keep', 'per', 'start', 'tau'], not 'random'",
        ),
        (
            {"methods": {"rrn": None}},
            "params.yaml: methods.rrn is null: expected what the row changes of method, in braces: {}",
        ),
        (
            {"train": {"steps": "300"}},
            "params.yaml: train.steps is '300': expected a whole number from 1 to 2147483647: 300",
        ),
        (
            {"augment": {"crop": 32.0}},
            "params.yaml: augment.crop is 32.0: expected a whole number from 16 to 65535: 32",
        ),
        ({"augment": {"flip": "no"}}, "params.yaml: augment.flip is 'no': expected true or false: false"),
        ({"optimizer": {"lr": "0.05"}}, "params.yaml: optimizer.lr is '0.05': expected a number above 0: 0.05"),
        ({"optimizer": {"lr": 0}}, "params.yaml: optimizer.lr is 0: expected a number above 0"),
        ({"optimizer": {"lr": float("nan")}}, "params.yaml: optimizer.lr is nan: expected a number above 0"),
        ({"method": {"filter": {"tau": 2.0}}}, "params.yaml: method.filter.tau is 2.0: expected a number from 0 to 1"),
        ({"method": {"rho": "sum"}}, "params.yaml: method.rho is 'sum': expected none, product, mean"),
        ({"precision": "fp8"}, "params.yaml: precision is 'fp8': expected fp32, bf16 or fp16"),
        ({"device": "gpu"}, "params.yaml: device is 'gpu': expected auto, cpu or cuda (or cuda:0"),
        ({"dataset": {"void": [300]}}, "params.yaml: dataset.void.0 is 300: expected a whole number from 0 to 255"),
        (
            {"ablation": {"partitions": ["some"]}},
            "ablation.partitions.0 is 'some': no partition: expected 1of16, a number",
        ),
        (
            {"ablation": {"partitions": ["1/16"]}},
            "params.yaml: ablation.partitions.0 is '1/16': no partition: write 1of16",
        ),
        ({"ablation": {"partitions": ["1of٣"]}}, "ablation.partitions.0 is '1of٣': no partition: expected 1of16"),
        ({"ablation": {"partitions": [10**9]}}, "ablation.partitions.0 is 1000000000: no partition: expected 1of16"),
        ({"train": {"steps": 2**31}}, "train.steps is 2147483648: expected a whole number from 1 to 2147483647"),
        ({"train": {"steps": 1 << 20000}}, "params.yaml: train.steps is a number of 20001 bits: expected a whole"),
        ({"threads": 10**6}, "params.yaml: threads is 1000000: expected a whole number from 1 to 1024"),
        (
            {"augment": {"scales": [1e-300, 1.0]}},
            "augment.scales.0 is 1e-300: expected a number from 0.015625 to 64",
        ),
        ({"evaluate": {"scales": [1e300]}}, "evaluate.scales.0 is 1e+300: expected a number from 0.015625 to 64"),
        ({"name": 65 * "x"}, "params.yaml: name is 'xxx"),
        (
            {"name": "../x"},
            "params.yaml: name is '../x': expected letters, digits, _ and . (at most 64, a letter or digit first): x",
        ),
        ({"device": "cuda:٣"}, "params.yaml: device is 'cuda:٣': expected auto, cpu or cuda"),
        ({"dataset": {"path": ""}}, "params.yaml: dataset.path is '': expected one line of text"),
        ({"dataset": {"path": "a\0b"}}, "params.yaml: dataset.path is 'a\\x00b': expected one line of text"),
        ({"dataset": {"train": "../x"}}, "params.yaml: dataset.train is '../x': expected the name of one folder"),
        ({"dataset": {"train": ".."}}, "params.yaml: dataset.train is '..': expected the name of one folder"),
        ({"dataset": {"test": "a/b"}}, "params.yaml: dataset.test is 'a/b': expected the name of one folder"),
        (
            {"dataset": {"val": "train"}},
            "dataset: train: train is val or test, too; what is learned from must not be scored on",
        ),
        (
            {"dataset": {"void": 30 * ["x"]}},
            "void.19 is 'x': expected a whole number from 0 to 255\nparams.yaml: and 10 more",
        ),
        ({"methods": {"\x1b": {}}}, "params.yaml: methods has a row '\\x1b': expected letters, digits"),
        ({"train": 5}, "params.yaml: train is 5: expected a section with keys ['lr_ramp', 'steps']"),
        ({"ablation": {"seeds": [0, 1, 0]}}, "ablation: seeds: [0, 1, 0] names one twice; remove the second"),
        ({"split": {"protocol": "cps", "stratified": True}}, "split: stratified: true is for protocol: seeded"),
        (
            {"dataset": {"kind": "voc"}},
            "dataset: void: [255] is for kind: folder; voc knows which of its values are void",
        ),
        (
            {"dataset": {"kind": "voc", "void": None, "unlabeled": "more"}},
            "dataset: unlabeled: more is for kind: folder",
        ),
        ({"dataset": {"unlabeled": "val"}}, "dataset: unlabeled: val is a split already; name a folder of images/"),
        (
            {"ablation": {"seeds": []}},
            "params.yaml: ablation.seeds is []: expected a list of at least one, each a whole",
        ),
        ({"ablation": {"methods": ["rnn"]}}, "ablation.methods: 'rnn' is no row of methods:; did you mean 'rrn'?"),
        ({"ablation": {"explore": "rnn"}}, "ablation.explore: 'rnn' is no row of methods:; did you mean 'rrn'?"),
        (
            {"method": {"discriminator": {"objective": "adversarial", "sees_both": True}, "filter": {"by": "random"}}},
            "discriminator.sees_both: true is for objective: accuracy; a label has no second opinion beside it",
        ),
        *(
            (
                {"methods": {"rrn": {"discriminator": {"objective": "adversarial", "sees_both": False, **change}}}},
                f"discriminator.{said} is about labeled images, of which objective: adversarial sees the labels alone; "
                f"set discriminator.objective: accuracy, or discriminator.{off}",
            )
            for change, said, off in [
                ({"answers_of": "teachers"}, "answers_of: teachers", "answers_of: students"),
                ({"wrong_weight": 3.0}, "wrong_weight: 3.0", "wrong_weight: 1.0"),
            ]
        ),
        *(
            (
                {"methods": {"rrn": {"discriminator": {"objective": "accuracy", "feature_matching": 0.0, **change}}}},
                f"discriminator.{said} needs segmenters that are asked for it: no student sees those images in "
                f"training mode; set discriminator.answers_of: teachers, or discriminator.{off}",
            )
            for change, said, off in [
                ({"cutmix": True}, "cutmix: true", "cutmix: false"),
                ({"pretrain": 5}, "pretrain: 5", "pretrain: 0"),
            ]
        ),
        (
            {"methods": {"rrn": {"discriminator": {"network": "relations", "objective": "adversarial"}}}},
            "discriminator.network: relations learns where labels are right; set discriminator.objective: accuracy, or "
            "discriminator.network: convolutions",
        ),
        (
            {"methods": {"cps": {"negative": {"weight": 1.0, "below": 0.05}}}},
            "negative is about pseudo-labels that weigh nothing, and in this row none does; set filter.by: probability "
            "or another with filter.keep: fraction or threshold, or rho: agreement, or negative: null",
        ),
        (
            {"methods": {"rrn": {"negative": {"weight": 1.0, "below": 0.05}, "networks": "student_teacher"}}},
            "negative is for networks: pair; a student that says itself what it should avoid learns nothing: set "
            "negative: null, or networks: pair",
        ),
        (
            {"methods": {"supervised": {"negative": {"weight": 1.0, "below": 0.05}}}},
            "negative is about pseudo-labels of the consistency term that weigh nothing; set consistency: true, or "
            "negative: null",
        ),
        ({"augment": {"scales": [2.0, 1.0]}}, "params.yaml: augment: scales [2.0, 1.0] must be [smallest, largest]"),
        ({"cutmix": {"area": [0.5, 0.1]}}, "params.yaml: cutmix: area [0.5, 0.1] must be [smallest, largest]"),
        (
            {"methods": {"supervised_all": {"consistency": True}}},
            "params.yaml: methods.supervised_all: method: labels: all is the supervised upper bound, which leaves no "
            "unlabeled images; set consistency: false, or labels: partition",
        ),
        (
            {"methods": {"supervised": {"strong": {"jitter": 0.5}}}},
            "params.yaml: methods.supervised: method: strong changes the unlabeled images that students see in the "
            "consistency term; set consistency: true, or strong: null",
        ),
        ({"methods": {"rrn": {"strong": {"grey": 0.2}}}}, "no setting 'method.strong.grey'; did you mean 'gray'?"),
        (
            {"methods": {"rrn": {"strong": 0.5}}},
            "method.strong is 0.5: expected a section with keys ['blur', 'gray', 'jitter', 'views'], or null",
        ),
        (
            {"methods": {"rrn": {"consistency": False}}},
            "params.yaml: methods.rrn: method: filter.by: region_score is about the pseudo-labels of the consistency "
            "term; set consistency: true, or filter.by: none",
        ),
        (
            {"methods": {"supervised": {"consistency": False, "rho": "mean"}}},
            "methods.supervised: method: rho: mean is about the pseudo-labels of the consistency term; "
            "set consistency: true, or rho: none",
        ),
        (
            {"methods": {"supervised": {"consistency": False, "teacher": "ema"}}},
            "teacher: ema is about the pseudo-labels of the consistency term; set consistency: true, or "
            "teacher: current",
        ),
        (
            {"methods": {"supervised": {"consistency": False, "networks": "student_teacher"}}},
            "networks: student_teacher is about the pseudo-labels of the consistency term; set consistency: true, or "
            "networks: pair",
        ),
        (
            {"methods": {"cps": {"networks": "student_teacher", "teacher": "ema"}}},
            "methods.cps: method: teacher: ema is for networks: pair; the teacher of a student is an average already, "
            "with teacher_decay: set teacher: current, or networks: pair",
        ),
        (
            {"methods": {"cps": {"networks": "student_teacher", "labels_from": "ensemble"}}},
            "methods.cps: method: labels_from: ensemble is for networks: pair; a student that is half of the ensemble "
            "would label its own images: set labels_from: other, or networks: pair",
        ),
        (
            {
                "methods": {
                    "cps": {
                        "networks": "student_teacher",
                        "filter": {"by": "probability"},
                        "labels_from": "ensemble_below_tau",
                    }
                }
            },
            "methods.cps: method: labels_from: ensemble_below_tau is for networks: pair; a student",
        ),
        ({"method": {"networks": "students"}}, "params.yaml: method.networks is 'students': expected pair or student_"),
        (
            {"methods": {"cps": {"labels_from": "ensemble_below_tau"}}},
            "methods.cps: method: labels_from: ensemble_below_tau asks the score of filter.by, and none is none; "
            "set filter.by: probability or another, or labels_from: ensemble",
        ),
        (
            {"methods": {"cps": {"filter": {"by": "confidence", "keep": "threshold", "per": "class"}}}},
            "methods.cps: method.filter: per: class keeps a fraction of each class, and keep: threshold keeps none; "
            "set keep: fraction, or per: batch",
        ),
        (
            {"methods": {"cps": {"filter": {"by": "random", "keep": "soft"}}}},
            "methods.cps: method.filter: keep: soft weighs by a score, and by: random is none; "
            "set by: probability or another, or keep: fraction",
        ),
        (
            {"methods": {"rrn": {"filter": {"by": "region_score"}, "discriminator": {"maps": "hard"}}}},
            "methods.rrn: method: discriminator.maps: hard carries no gradient, so feature matching cannot work on it; "
            "set discriminator.maps: soft, or discriminator.feature_matching: 0",
        ),
        (
            {"methods": {"rrn": {"filter": {"by": "region_score"}, "discriminator": {"objective": "accuracy"}}}},
            "discriminator.objective: accuracy has no real and fake features to match; "
            "set discriminator.feature_matching: 0, or discriminator.objective: adversarial",
        ),
        (
            {"method": {"grid": 5}},
            "params.yaml: method.grid: 5 regions do not fill augment.crop: 32 pixels evenly; try grid [1, 2, 4, 8]",
        ),
        (
            {"methods": {"rrn": {"filter": {"by": "region_score"}, "grid": 8}}},
            "methods.rrn: method.grid: 8 regions a side, but the discriminator's map has 4 cells a side; "
            "lower grid, discriminator.input_stride or the number of discriminator.channels",
        ),
        ({"nproc": 2, "batch": {"labeled": 5}}, "params.yaml: batch.labeled: 5 is not a multiple of nproc: 2"),
        (
            {"nproc": 2, "batch": {"labeled": 4, "unlabeled": 2}},
            "batch.unlabeled: 2 gives fewer than 2 images to each of nproc: 2, and batch norm needs 2; "
            "raise it or lower the other",
        ),
        (
            {"nproc": 2, "batch": {"labeled": 4, "unlabeled": 4}, "device": "cuda:0"},
            "params.yaml: device: cuda:0 is one GPU, and nproc: 2 needs one each; set device: cuda",
        ),
        ({"speed": {"accumulate": 2}}, "params.yaml: no setting 'speed.accumulate'"),
        (
            {
                **{"nproc": 2, "batch": {"labeled": 4, "unlabeled": 4}},
                "method": {
                    "filter": {"by": "region_score"},
                    "discriminator": {
                        **{"objective": "accuracy", "feature_matching": 0.0, "answers_of": "teachers"},
                        "cutmix": True,
                    },
                },
            },
            "params.yaml: method.discriminator.cutmix: true mixes images of one process, and with nproc: 2 others than "
            "with 1; set nproc: 1, or method.discriminator.cutmix: false",
        ),
        ({"batch": {"labeled": 1}}, "batch.labeled: 1 gives fewer than 2 images to each of nproc: 1"),
        (
            {"log": {"every": 4, "evaluate": 8, "checkpoint": 6}},
            "params.yaml: log: checkpoint: 6 is not a multiple of every: 4; losses are looked at every so many steps",
        ),
    ],
)
def test_refused_with_the_key_and_what_to_do(changes, message):
    assert message in refusal(changes)


def test_a_problem_of_the_whole_is_not_blamed_on_a_row():
    assert "methods." not in refusal({"devise": "cpu"}, "rrn")


def test_all_problems_stand_in_one_message():
    text = refusal({"threads": 0, "nproc": -1})
    assert [line.split(" is ")[0] for line in text.splitlines()] == ["params.yaml: threads", "params.yaml: nproc"]


def test_missing_settings_are_named():
    values = params()
    del values["optimizer"]["lr"]
    with pytest.raises(SettingsError, match=r"params.yaml: optimizer.lr is missing"):
        config.resolve(values)
    del values["method"]
    with pytest.raises(SettingsError, match=r"params.yaml: method is missing"):
        config.resolve(values)


OLD = [
    ("workers", "loading.workers"),
    ("dataset.cache", "loading.cache"),
    ("evaluate.batch", "loading.evaluation_batch"),
    ("evaluate.pixels", "loading.evaluation_pixels"),
    ("evaluate.evidence", "log.evidence"),
]
"""A key as params.yaml had it, and where it stands now."""


@pytest.mark.parametrize(("old", "new"), OLD)
def test_a_key_that_has_moved_is_named_with_its_new_place_and_nothing_else_is_said(old, new):
    (*sections, key), (section, name) = old.split("."), new.split(".")
    values, change = params(), {sections[0]: {key: 1}} if sections else {key: 1}
    del values[section][name]
    with pytest.raises(SettingsError, match=f"^params.yaml: {old} is now {new}$"):
        config.resolve(_deep(values, change))
    with pytest.raises(SettingsError, match=f"^params.yaml: {old} is now {new}$"):
        config.resolve(params(), "rrn", change)


def test_settings_of_an_earlier_version_are_told_once_what_has_moved():
    values = params()
    values = _deep(values, {"workers": 0, "dataset": {"cache": True}, "evaluate": {"batch": 1, "pixels": 1}})
    values["evaluate"]["evidence"] = values["log"].pop("evidence")
    del values["loading"]
    told = refusal_of(values).splitlines()
    assert sorted(told) == sorted(f"params.yaml: {old} is now {new}" for old, new in OLD)


def test_unknown_row_and_unknown_override():
    with pytest.raises(SettingsError, match="methods has no row 'local_filtre'; did you mean 'local_filter'"):
        config.resolve(params(), "local_filtre")
    with pytest.raises(
        SettingsError, match=r"has no setting 'optimizer.rate'; there are head, kind, layer_decay, lr, momentum, poly"
    ):
        config.resolve(params(), "rrn", {"optimizer": {"rate": 1.0}})
    with pytest.raises(SettingsError, match=r"has no setting 'method.filter.tua'; did you mean 'tau'"):
        config.resolve(params(), "rrn", {"method": {"filter": {"tua": 1.0}}})


def test_a_row_lies_over_the_defaults_and_overrides_over_the_row():
    values = params({"method": {"lambda_u": 2.0}, "methods": {"rrn": {"lambda_u": 3.0}}})
    assert config.resolve(values).method.lambda_u == 2
    assert config.resolve(values, "rrn").method.lambda_u == 3
    assert config.resolve(values, "local_filter").method.lambda_u == 2
    over = config.resolve(values, "rrn", {"method": {"lambda_u": 4.0}, "optimizer": {"lr": 1.0}})
    assert (over.method.lambda_u, over.method.filter.by, over.optimizer.lr) == (4, "region_score", 1)
    assert config.resolve(values, "new", {"methods": {"new": {"lambda_u": 5.0}}}).method.lambda_u == 5


STRONG = {"jitter": 0.5, "gray": 0.2, "blur": 0.5}


def test_a_row_has_strong_views_that_the_others_have_not():
    values = params({"methods": {"strong": {"strong": STRONG}}})
    assert config.resolve(values, "strong").method.strong == config.Strong(**STRONG)
    assert config.resolve(values, "cps_cutmix").method.strong is None
    assert config.in_row(config.resolve(values), "strong").strong == config.Strong(**STRONG)
    part = config.resolve(config.merge(values, {"methods": {"rrn": {"strong": {"jitter": 0.3}}}}), "rrn")
    assert part.method.strong == config.Strong(jitter=0.3, gray=0.0, blur=0.0)
    over = config.resolve(values, "strong", {"method": {"strong": {"gray": 0.4}}})
    assert over.method.strong == config.Strong(**STRONG | {"gray": 0.4})


def test_a_row_goes_without_strong_views_that_all_others_have():
    values = params({"method": {"strong": STRONG}, "methods": {"weak": {"strong": None}}})
    values["methods"] = {"weak": values["methods"]["weak"], "strong": {}}
    values["ablation"] |= {"methods": ["weak"], "explore": None}
    assert config.resolve(values, "weak").method.strong is None
    assert config.resolve(values, "strong").method.strong == config.Strong(**STRONG)
    assert config.resolve(values, "strong", {"method": {"strong": None}}).method.strong is None
    assert config.in_row(config.resolve(values), "weak").strong is None


def test_null_in_place_of_a_section_that_is_needed_is_refused():
    with pytest.raises(SettingsError, match=r"methods.rrn: method.filter is null: expected a section with keys \['by"):
        config.resolve(params({"methods": {"rrn": {"filter": None}}}), "rrn")


def test_inputs_are_not_changed_and_settings_are_frozen():
    values = params()
    before = config.fingerprint(values)
    settings = config.resolve(values, "rrn", {"method": {"filter": {"tau": 0.1}}})
    assert config.fingerprint(values) == before
    with pytest.raises(ValueError, match="frozen"):
        settings.threads = 3


def test_fingerprint_knows_every_value():
    settings = config.resolve(params(), "rrn")
    same = config.resolve(params(), "rrn")
    other = config.resolve(params(), "rrn", {"method": {"filter": {"tau": 0.61}}})
    assert config.fingerprint(settings) == config.fingerprint(same) != config.fingerprint(other)


def test_read_follows_yaml_1_2_and_names_a_broken_file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("a: 1e-3\nb: no\n", encoding="utf-8")
    assert config.read(path) == {"a": 0.001, "b": "no"}
    path.write_text("a: [1\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"params.yaml is not valid YAML"):
        config.read(path)
    path.write_text("- 1\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"params.yaml: expected keys and values, found \[1\]"):
        config.read(path)


def test_root_is_found_from_below_and_missed_with_a_message(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no params.yaml beside a dvc.yaml in .* start in the repository"):
        config.find_root(tmp_path)
    root = repository(tmp_path / "root")
    below = root / "notebooks" / "deep"
    below.mkdir(parents=True)
    assert config.find_root(below) == root
    write_params(root, params({"threads": 3}))
    monkeypatch.chdir(below)
    assert config.load().threads == 3
