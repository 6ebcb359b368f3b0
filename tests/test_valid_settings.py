"""Settings that are accepted build networks, take a step and are measured, whatever is combined; others say why not."""

import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_bad_settings import examples

from rrn import config
from rrn.config import SettingsError
from rrn.data.batches import WholeBatch
from rrn.evaluation import metrics, region_tables
from rrn.evaluation.inference import Predictor, require_fit
from rrn.method import RRN
from rrn.reliability.measures import summarize
from rrn.training import learner
from rrn.training.learner import Learner

SIZE = (19, 23)
whole = st.just({"mode": "whole", "window": None, "stride": None})
pad = st.just({"mode": "pad", "window": [24, 24], "stride": None})
sliding = st.fixed_dictionaries(
    {
        "mode": st.just("sliding"),
        "window": st.sampled_from([[8, 9], [19, 23], [40, 5]]),
        "stride": st.sampled_from([[7, 5], [8, 4]]),
        "last": st.sampled_from(["shifted", "ragged"]),
    }
)
looks = st.tuples(
    whole | pad | sliding,
    st.fixed_dictionaries(
        {"scales": st.sampled_from([[1.0], [0.5, 1.25], [0.02]]), "flip": st.booleans(), "folded": st.booleans()}
    ),
).map(lambda both: both[0] | both[1])


def possible(judge):
    """Return settings of a discriminator whose parts go with each other; the refusals have tests of their own."""
    if judge["network"] == "relations":
        judge = {**judge, "sees_both": True, "maps": "soft", "sees_image": False, "objective": "accuracy"}
    if judge["objective"] == "adversarial":
        judge = {**judge, "answers_of": "students", "wrong_weight": 1.0}
    return judge if judge["answers_of"] == "teachers" else {**judge, "cutmix": False, "pretrain": 0}


judges = st.fixed_dictionaries(
    {
        "objective": st.sampled_from(["adversarial", "accuracy"]),
        "maps": st.sampled_from(["soft", "hard"]),
        "sees_image": st.booleans(),
        "sees_both": st.booleans(),
        "input_stride": st.integers(1, 3),
        "channels": st.sampled_from([[4], [4, 6]]),
        "dropout": st.sampled_from([0.0, 0.5]),
        "feature_matching": st.sampled_from([0.0, 0.1]),
        "network": st.sampled_from(["convolutions", "convolutions", "relations"]),
        "answers_of": st.sampled_from(["students", "teachers"]),
        "cutmix": st.booleans(),
        "wrong_weight": st.sampled_from([1.0, 3.0]),
        "pretrain": st.integers(0, 2),
    }
).map(possible)
methods = st.fixed_dictionaries(
    {
        "cutmix": st.booleans(),
        "networks": st.sampled_from(["pair", "student_teacher"]),
        "teacher_statistics": st.sampled_from(["batch", "running"]),
        "lambda_u_ramp": st.integers(0, 3),
        "filter": st.fixed_dictionaries(
            {
                "by": st.sampled_from(["none", "region_score", "region_score", "confidence", "random"]),
                "keep": st.sampled_from(["threshold", "fraction"]),
                "tau": st.sampled_from([0.0, 0.5, 1.0]),
                "fraction": st.sampled_from([0.0, 0.5, 1.0]),
                "start": st.integers(0, 1),
            }
        ),
        "negative": st.sampled_from([None, None, {"weight": 0.5, "below": 0.4}]),
        "rho": st.sampled_from(["none", "none", "product", "mean", "votes", "agreement", "divergence"]),
        "grid": st.sampled_from([1, 2, 3, 4]),
        "discriminator": judges,
    }
)
changes = st.fixed_dictionaries(
    {
        "precision": st.sampled_from(["fp32", "bf16"]),
        "augment": st.fixed_dictionaries({"crop": st.sampled_from([16, 17, 24, 33])}),
        "batch": st.fixed_dictionaries({"labeled": st.integers(2, 4), "unlabeled": st.integers(2, 4)}),
        "speed": st.fixed_dictionaries({"merged": st.booleans(), "checkpointing": st.booleans()}),
        "optimizer": st.fixed_dictionaries(
            {
                "kind": st.sampled_from(["sgd", "adamw"]),
                "head": st.sampled_from([1.0, 10.0]),
                "layer_decay": st.sampled_from([1.0, 0.8]),
            }
        ),
        "model": st.fixed_dictionaries({"second": st.sampled_from([None, None, {"encoder": "tu-test_resnet"}])}),
        "evaluate": looks,
        "method": methods,
    }
)


@given(changes, st.sampled_from(["supervised", "cps_cutmix"]), st.integers(1, 3))
@examples(25)
def test_settings_are_refused_or_learn_and_are_measured(change, row, classes):
    try:
        settings = config.resolve(tiny.params(), row, change)
        model = RRN(settings, classes, seed=0)
        learn = Learner(learner.prepare_for(model, torch.device("cpu"), settings.speed), settings, settings.train, True)
        require_fit(settings.evaluate, [SIZE])
    except SettingsError as error:
        assert len(str(error)) < 600 and "\n" not in str(error)
        return
    batch = tiny.batch(settings.augment.crop, settings.batch.labeled, settings.batch.unlabeled)
    batch.labels[batch.labels != config.IGNORE_INDEX] %= classes
    if settings.method.uses_discriminators and settings.method.discriminator.pretrain:
        learn.pretrain(batch, 0)
    terms = learn.step(batch, 0)
    assert {"supervised"} <= set(terms)
    learn.require_finite([terms], 1, "this one")
    predictor = Predictor(model, settings.evaluate, settings.loading)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2, 3, *SIZE), dtype=torch.uint8, generator=draw)
    labels = torch.randint(classes, (2, *SIZE), generator=draw)
    names = [f"class {number}" for number in range(classes)]
    seen = list(region_tables.predict_batches(predictor, [WholeBatch(images, labels, ("a", "b"))]))
    values = metrics.evaluate(seen, names).metrics()
    assert all(0 <= value <= 100 for value in values.values())
    table = summarize(region_tables.region_table(predictor, seen[0], names), settings.method.filter)
    assert ("region_score" in set(table["score"])) == settings.method.uses_discriminators
    assert table["coverage"].dropna().between(0, 1).all()
