"""What a GPU answers about images, against the CPU; the data on their way to it.

With RRN_TEST_DEVICE=cpu both are the CPU, and memory is not page-locked.
"""

import copy

import gpus
import pytest
import tiny
import torch
from small import partitioned

from rrn import config
from rrn.data.batches import training_loader
from rrn.data.image_set import ImageSet
from rrn.evaluation.inference import EvaluationShortage, Predictor
from rrn.runtime import memory
from rrn.training.learner import prepare_for

pytestmark = pytest.mark.cuda
CPU = torch.device("cpu")
SAME = {"rtol": 1e-4, "atol": 1e-4}
"""Of logits, and logarithms of probabilities, of size 1, which float32 rounds by 4e-7; TF32 is off."""
WHOLE = {"mode": "whole", "window": None, "stride": None, "last": "shifted", "scales": [1.0], "flip": False}
SLIDING = {**WHOLE, "mode": "sliding", "window": [32, 48], "stride": [20, 30]}
PROTOCOLS = {
    "whole": WHOLE,
    "padded": {**WHOLE, "mode": "pad", "window": [64, 96]},
    "sliding, shifted": SLIDING,
    "sliding, ragged": {**SLIDING, "last": "ragged"},
    "sliding, two scales, mirrored": {**SLIDING, "scales": [1.0, 2.0], "flip": True},
}
"""At twice their size the pixels of an image are sums of quarters, so that all devices round them to the same bytes."""
SIZES = ((45, 67), (64, 64), (38, 90))
"""Height and width of the images that one predictor sees one after the other."""


@pytest.fixture(autouse=True)
def full_precision():
    with gpus.without_tf32():
        yield


@pytest.fixture(scope="module")
def model():
    """Networks of rrn on the CPU, channels last, whose batch norm has seen images."""
    of = gpus.learner_of(CPU, "rrn")
    for step in range(6):
        of.step(tiny.batch(seed=step), step)
    return of.model


def moved(model, device):
    """Return a copy of networks on a device, as a training has them there."""
    return prepare_for(copy.deepcopy(model), device, tiny.settings("rrn").speed)


def protocol(**values):
    return tiny.settings("rrn", {"evaluate": values}).evaluate


def three():
    """Return settings of `loading` that let three images go through the networks at once."""
    return tiny.settings(changes={"loading": {"evaluation_batch": 3}}).loading


def some_images(height, width, count=2):
    draw = torch.Generator().manual_seed(height)
    return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=draw)


@pytest.mark.parametrize("folded", [False, True], ids=["plain", "folded"])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_gpu_answers_as_the_cpu_does(device, model, name, folded):
    expected = Predictor(model, protocol(**PROTOCOLS[name], folded=False), three())
    found = Predictor(moved(model, device), protocol(**PROTOCOLS[name], folded=folded), three())
    for size in SIZES:
        images = some_images(*size)
        logits, wanted = found.logits(images), expected.logits(images)  # it takes them to its device itself
        assert logits.device.type == device.type and logits.dtype == torch.float32
        torch.testing.assert_close(logits.cpu(), wanted, **SAME)
        scores = found.region_scores(logits, images.to(device))
        torch.testing.assert_close(scores.cpu(), expected.region_scores(wanted, images), **SAME)


def test_folded_networks_follow_the_weights_on_the_device(device, model):
    networks, images = moved(model, device), some_images(*SIZES[0]).to(device)
    plain, folded = (Predictor(networks, protocol(**WHOLE, folded=folded), three()) for folded in (False, True))
    before = folded.logits(images)
    with torch.no_grad():
        for name, value in networks.segmenters.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                value.mul_(1.5)
    after = folded.logits(images)
    torch.testing.assert_close(after, plain.logits(images), **SAME)
    assert float((after - before).abs().max()) > 0.01


def test_images_that_do_not_fit_are_told_with_what_needs_less_and_others_are_looked_at(device, model):
    predictor, images = Predictor(moved(model, device), protocol(**WHOLE), three()), some_images(*SIZES[0]).to(device)
    expected, large = predictor.logits(images), gpus.many_pixels(device, 2, 3)
    with gpus.no_more_memory(device), pytest.raises(EvaluationShortage) as caught:
        predictor.logits(large)
    side, said = large.shape[-1], "CUDA out of memory" if device.type == "cuda" else memory.ON_THE_CPU
    first, *ways = str(caught.value).splitlines()
    assert first.startswith(f"looking at images of shape [2, 3, {side}, {side}] does not fit into memory (")
    assert said in first and first.endswith("what would need less:")
    assert ways == [
        "  loading.evaluation_batch: 1 looks at one image or window at a time, with the same answers",
        "  evaluate.mode: sliding, with a smaller window, is another protocol",
    ]
    del caught
    torch.testing.assert_close(predictor.logits(images), expected, **SAME)


# ---- Batches -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set, its settings and who is labeled."""
    root = tiny.repository(tmp_path_factory.mktemp("data") / "repository")
    settings = config.load(root=root)
    dataset = ImageSet.open(settings, root)
    return dataset, settings, partitioned(dataset, settings, "1of4")


def batches(data, device, workers):
    dataset, settings, split = data
    settings = settings.model_copy(
        update={"device": device.type, "loading": settings.loading.model_copy(update={"workers": workers})}
    )
    return list(training_loader(dataset, split, settings, 0, 0, 4, "train"))


def tensors(batch):
    return [batch.images, batch.labels, *batch.unlabeled, *batch.unlabeled_valid, batch.mix]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_to_the_device_as_they_are(device, data, workers):
    found, expected = batches(data, device, workers), batches(data, CPU, 0)
    assert len(found) == len(expected) == 4
    for batch, wanted in zip(found, expected, strict=True):
        assert all(tensor.is_pinned() == (device.type == "cuda") for tensor in tensors(batch))
        with gpus.waiting_for_nothing(device):
            there = batch.to(device)
        assert all(tensor.device.type == device.type for tensor in tensors(there))
        assert all(torch.equal(one.cpu(), other) for one, other in zip(tensors(there), tensors(wanted), strict=True))
        assert (there.labeled_ids, there.unlabeled_ids) == (wanted.labeled_ids, wanted.unlabeled_ids)
        assert torch.equal(there.images.cpu(), wanted.images) and there.labels.dtype == torch.int64
