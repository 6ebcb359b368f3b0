"""A finished run for other programs: what each file answers, what the card says, and what is refused."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import segmentation_models_pytorch as smp
import tiny
import torch

from rrn import train
from rrn.config import SettingsError
from rrn.data.splits import read_split
from rrn.evaluation.metrics import confusion_matrix, evaluate, miou
from rrn.evaluation.region_tables import predict_batches
from rrn.exporting import command, model_card, network, quantization
from rrn.exporting.model_card import CardWords
from rrn.exporting.quantization import images_of_run
from rrn.prediction import labeling
from rrn.prediction.exported import ExportedModel, OnnxPass, metadata
from rrn.runs import finished

KEY = "1of4-rrn-0"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished training, whose repository has a table and an evaluation of it."""
    repository = tiny.repository(tmp_path_factory.mktemp("export") / "repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        tiny.warm_up(repository)
        out = repository / "runs/tiny/train" / KEY
        list(train.run("train", "1of4", "rrn", 0, out))
    evaluated = repository / "runs/tiny/evaluate" / KEY
    evaluated.mkdir(parents=True)
    whose = ["miou_1", "miou_2", "miou_mean", "miou_ensemble"]
    (evaluated / "metrics.json").write_text(json.dumps(dict.fromkeys(whose, 61.234) | {"macs": 5}))
    pd.DataFrame({name: np.linspace(50, 70, 201) for name in whose}).to_csv(evaluated / "bootstrap.csv", index=False)
    row = {"name": "tiny", "partition": "1of4", "method": "rrn", "n": 3, "miou_mean": 60.5, "miou_std": 1.25}
    row |= {"difference": 0.41, "difference_low": 0.22, "difference_high": 0.61}
    (repository / "results/tiny").mkdir(parents=True)
    pd.DataFrame([row]).to_csv(repository / "results/tiny/ablation.csv", index=False)
    return out


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out"
    words = ["--data", "Random pixels, in the public domain.", "--license", "cc0-1.0"]
    assert command.main([str(run), str(out), *words, "--int8"]) == 0
    return out


@pytest.fixture(scope="module")
def model(run):
    return finished.load_finished(run, "cpu")[0]


def images(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("shape", [(1, 3, 40, 33), (3, 3, 32, 96), (1, 3, 7, 90)])
def test_onnx_answers_as_the_run_for_any_batch_and_size(exported, model, shape):
    asked = images(*shape)
    answer = OnnxPass(exported / "model.onnx")(asked)
    own = model.logits(asked).softmax(2).mean(0)
    assert answer.shape == (shape[0], tiny.CLASSES, *shape[2:])
    torch.testing.assert_close(answer, own, atol=command.TOLERANCE, rtol=0)


@pytest.mark.parametrize("shape", [(1, 3, 40, 33), (3, 3, 32, 96), (1, 3, 7, 90)])
def test_region_scores_are_those_of_the_run(exported, model, shape):
    asked = images(*shape)
    answer = OnnxPass(exported / "model.onnx")(asked, output="region_scores")
    own = model.region_scores(model.logits(asked), asked)[:, 0].mean(0)
    assert answer.shape == (shape[0], -(-shape[2] // 16), -(-shape[3] // 16))
    torch.testing.assert_close(answer, own, atol=command.TOLERANCE, rtol=0)


def file_of(network_of_row, who, card, path):
    """Write model.onnx of networks that were not trained."""
    first = network_of_row.segmenters[0]
    program = None if network_of_row.discriminators else network.exported_program(network_of_row, who)
    made = command._onnx(network_of_row, who, program, metadata(card, who, first.mean))
    onnx.save(made, path)
    return path


def test_without_discriminators_probabilities_are_the_only_output(run, tmp_path):
    path = file_of(tiny.model("cps_cutmix").eval(), "1", finished.read_card(run), tmp_path / "model.onnx")
    assert OnnxPass(path).outputs == ["probabilities"]
    with pytest.raises(SettingsError, match=r"has no region scores, since .*: leave --regions out, or export"):
        ExportedModel(path, regions=True)


def test_a_discriminator_that_compares_both_finds_both_in_an_export_of_one(run, tmp_path):
    judge = {"objective": "accuracy", "sees_both": True, "feature_matching": 0.0}
    both = tiny.model("rrn", {"method": {"discriminator": judge}}).eval()
    path, asked = file_of(both, "2", finished.read_card(run), tmp_path / "model.onnx"), images(1, 3, 50, 41)
    logits = both.logits(asked)
    torch.testing.assert_close(OnnxPass(path)(asked), logits[1].softmax(1), atol=1e-5, rtol=0)
    judged = ExportedModel(path, regions=True)
    assert (judged.answering, judged.alone) == ("2", False)
    torch.testing.assert_close(judged.logits(asked).exp(), logits.softmax(2), atol=1e-5, rtol=0)
    own = both.region_scores(logits, asked)[:, :1]
    torch.testing.assert_close(judged.region_scores(logits, asked), own, atol=1e-5, rtol=0)


def test_the_program_of_torch_export_answers_as_the_run(exported, model):
    asked = images(3, 3, 96, 32)
    answer = torch.export.load(exported / "model.pt2").module()(asked.float())
    torch.testing.assert_close(answer, model.logits(asked).softmax(2).mean(0), atol=command.TOLERANCE, rtol=0)


@pytest.mark.parametrize("k", [0, 1])
def test_the_folders_are_models_of_segmentation_models_pytorch(exported, model, k):
    asked = images(2, 3, 64, 32)
    alone = smp.from_pretrained(exported / f"segmenter_{k + 1}").eval()
    with torch.no_grad():
        logits = alone(model.normalize(asked))
    torch.testing.assert_close(logits, model.logits(asked)[k], atol=1e-5, rtol=0)
    assert "mit" not in (exported / f"segmenter_{k + 1}" / "README.md").read_text().lower().split()


def test_eight_bits_answer_nearly_as_the_run(exported):
    asked = images(2, 3, 40, 70)
    small, full = (OnnxPass(exported / name)(asked) for name in ("model_int8.onnx", "model.onnx"))
    assert small.shape == full.shape and 0 < float((small - full).abs().mean()) < 0.02
    kinds = {tensor.data_type for tensor in onnx.load(exported / "model_int8.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    judged, whole = (ExportedModel(exported / name, True) for name in ("model_int8.onnx", "model.onnx"))
    logits = whole.logits(asked)
    assert torch.equal(judged.region_scores(logits, asked), whole.region_scores(logits, asked))
    assert OnnxPass(exported / "model_int8.onnx").metadata.keys() >= {"rrn.run", "rrn.segmenter", "rrn.mean"}


def test_what_eight_bits_cost_is_measured_as_the_run_is_evaluated(run, exported, monkeypatch):
    split = images_of_run(run)
    found = quantization.measure_cost(exported / "model.onnx", exported / "model_int8.onnx", split.val)
    model, card = finished.load_finished(run, "cpu")
    own = evaluate(predict_batches(labeling.predictor_of(model, card), split.val), card.classes)
    assert found.full == pytest.approx(own.metrics()["miou_ensemble"], abs=0.2)
    total = torch.zeros(tiny.CLASSES, tiny.CLASSES, dtype=torch.int64)
    small = OnnxPass(exported / "model_int8.onnx")
    for batch in split.val:
        total += confusion_matrix(small(batch.images).argmax(1), batch.labels, tiny.CLASSES)
    assert found.quantized == pytest.approx(100 * miou(total), abs=1e-9)
    monkeypatch.setattr(quantization, "_miou", lambda path, images: {"full": 60.0, "small": 59.5}[path.name])
    cost = quantization.measure_cost(Path("full"), Path("small"), split.val)
    text = model_card.model_card(card, model_card.gather(run, card), "1", "x", CardWords(), cost)
    words = f"n = {len(split.val.ids)} images: 59.50 mIoU, where model.onnx has 60.00."
    assert words in text and words not in (exported / "README.md").read_text()
    assert tuple(split.labeled.ids) == read_split(run.parents[1] / "prepare/1of4-0").labeled


def test_eight_bits_need_the_data_of_the_run(run, tmp_path, capsys, monkeypatch):
    shutil.copytree(run, tmp_path / "alone")
    assert command.main([str(tmp_path / "alone"), str(tmp_path / "out"), "--int8"]) == 1
    assert "does not lie in a repository, as runs/NAME/train/KEY: leave --int8 out" in capsys.readouterr().err
    other = tmp_path / "repository/runs/other/train" / KEY
    shutil.copytree(run, other)
    assert command.main([str(other), str(tmp_path / "out"), "--int8"]) == 1
    assert "needs params.yaml beside runs/, and" in capsys.readouterr().err
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(run.parents[3] / name, tmp_path / "repository" / name)
    assert command.main([str(other), str(tmp_path / "out"), "--int8"]) == 1
    assert "params.yaml says name: tiny, and the run is of other: set params.yaml to that" in capsys.readouterr().err
    changed = shutil.copytree(run.parents[3], tmp_path / "changed")
    (changed / "data/classes.txt").write_text("ground\ndisc\nbox\n")
    assert command.main([str(changed / "runs/tiny/train" / KEY), str(tmp_path / "out"), "--int8"]) == 1
    assert "those of params.yaml have other classes, or another dataset.size" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_segmenter_is_another_answer(model):
    asked = images(1, 3, 32, 32)
    first, second = (network.OnePass(model, who).eval()(asked.float()) for who in ("1", "2"))
    both = network.OnePass(model, "ensemble").eval()(asked.float())
    assert not torch.allclose(first, second)
    torch.testing.assert_close(both, (first + second) / 2)


def test_the_card_says_what_was_trained_and_how_good_it_is(exported, run):
    card = (exported / "README.md").read_text()
    for words in [
        "license: cc0-1.0",
        "# tiny 1of4-rrn-0",
        "DeepLabV3Plus on tu-test_efficientnet, trained for 6 steps by the row `rrn`",
        "Classes: 0 ground, 1 disc, 2 square.",
        "| ensemble | 61.23 | [50.50, 69.50] |",
        "The row `rrn`, n = 3 seeds: 60.50 ± 1.25; +0.41 [+0.22, +0.61] beside cps_cutmix, paired over seeds.",
        "4 images with labels, and 12 without (partition 1of4).\nRandom pixels, in the public domain.",
        "It gives every pixel one of 3 classes",
        "`probabilities` out, any size; `region_scores`, see below |",
        "`region_scores` [batch, rows, columns] say how right the labels of each square of 16 x 16 pixels look",
    ]:
        assert words in card, words
    assert "resized" not in card and "\n\n\n" not in card
    assert (exported / "run.json").read_bytes() == (run / "run.json").read_bytes()


def test_the_card_of_a_run_that_lies_alone_says_what_is_not_known(run, tmp_path):
    shutil.copytree(run, tmp_path / "alone")
    card = finished.read_card(tmp_path / "alone").model_copy(update={"size": (20, 30)})
    unjudged = tiny.model("cps_cutmix").row
    card = card.model_copy(update={"networks": card.networks.model_copy(update={"method": unjudged})})
    text = model_card.model_card(card, model_card.gather(tmp_path / "alone", card), "1", "x", CardWords())
    assert "region_scores" not in text
    assert "license:" not in text
    assert "# alone" in text and "This run was not evaluated where it was exported." in text
    assert "Not known how many images" in text and "Not stated what they are" in text
    assert "resized to 30 x 20 pixels" in text and "model.onnx | the first segmenter" in text


def test_what_is_no_finished_training_is_refused(run, tmp_path, capsys):
    assert command.main([str(run.parents[1] / "warmup/1of4-0"), str(tmp_path / "out")]) == 1
    assert "is a warmup" in capsys.readouterr().err
    assert command.main([str(tmp_path / "nothing"), str(tmp_path / "out")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_stays(run, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert command.main([str(run), str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_export_that_answers_otherwise_is_not_kept(run, exported, tmp_path, monkeypatch, capsys):
    model, _ = finished.load_finished(run, "cpu")
    with torch.no_grad():
        next(model.segmenters[0].parameters()).add_(1)
    with pytest.raises(command.ExportError, match=r"model\.onnx gives probabilities that differ by"):
        command._require_same(model, exported, "ensemble")
    model, _ = finished.load_finished(run, "cpu")
    with torch.no_grad():
        model.discriminators[1].head.bias.add_(0.01)
    with pytest.raises(command.ExportError, match=r"model\.onnx gives region scores that differ by"):
        command._require_same(model, exported, "ensemble")
    model.segmenters = model.segmenters[::-1]
    with pytest.raises(command.ExportError, match=r"model\.onnx gives probabilities that differ by"):
        command._require_same(model, exported, "ensemble")


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match=r"pip install -e '\.\[export\]'"):
        OnnxPass(tmp_path / "model.onnx")


def test_a_network_that_cannot_be_followed_is_refused(model, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("Could not guard on data\nmany lines")

    monkeypatch.setattr(network, "export", broken)
    with pytest.raises(SettingsError, match=r"at every size of images: Could not guard on data$"):
        network.exported_program(model, "1")
