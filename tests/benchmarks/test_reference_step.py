"""What the released step does, counted: its passes, its host reads and its copies; and what it learns from."""

import importlib
from collections import Counter

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

reference_step = importlib.import_module("reference_step")

UNLABELED, LABELED = 3, 2
LOGGED = 9
READS = 18
CALLS_OF_SELF_TRAINING = 4
NOBODY, EVERYBODY = 1.0, 0.0
"""Thresholds of the score."""


class Functions(TorchFunctionMode):
    """Count the methods of tensors by name."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        self.counts[getattr(function, "__name__", str(function))] += 1
        return function(*arguments, **keywords or {})


class Operations(TorchDispatchMode):
    """Count operations, and the int64 tensors that become float."""

    def __init__(self):
        super().__init__()
        self.counts, self.converted = Counter(), []

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        out = operation(*arguments, **keywords or {})
        name = operation.overloadpacket.__name__
        self.counts[name] += 1
        if name == "_to_copy" and arguments[0].dtype == torch.int64 and out.dtype == torch.float32:
            self.converted.append(tuple(out.shape))
        return out


def rival(threshold=EVERYBODY):
    return reference_step.ReferenceStep(tiny.settings("cps_cutmix"), tiny.CLASSES, 0, threshold)


def batch():
    return tiny.batch(images=LABELED, unlabeled=UNLABELED)


def without_adam(step):
    """Let the discriminators stay as they are: Adam counts its own steps on the host."""
    for optimizer in step.judges:
        optimizer.step = lambda: None


def passes(step):
    """Return the passes of one step in their order: network, image count, whether with a graph, whether in training."""
    seen = []
    networks = {"f": step.segmenters, "D": step.discriminators}

    def watch(name):
        def hook(module, arguments, output):
            out = output[0] if isinstance(output, tuple) else output
            seen.append((name, len(out), out.requires_grad, module.training))

        return hook

    for kind, pair in networks.items():
        for k, network in enumerate(pair):
            network.register_forward_hook(watch(f"{kind}{k + 1}"))
    step.step(batch())
    return seen


def test_passes_come_in_the_released_order():
    seen = passes(rival())
    assert [name for name, *_ in seen] == [
        *("f1", "f1", "f2", "f2"),
        *("f1", "f2"),
        *("D1", "D1", "D2", "D2"),
        *("D2", "D1"),
        *("f1", "f2"),
        *("D1", "D1", "D2", "D2"),
    ]
    count = Counter(name[0] for name, *_ in seen)
    assert count == {"f": 8, "D": 10}
    assert all(training for *_, training in seen), "everything runs in training mode, teachers and judges too"
    graphs = [graph for _, _, graph, _ in seen]
    assert graphs[:4] == [False] * 4, "teachers keep no graph"
    assert graphs[4:12] == [True, True, True, False, True, False, True, True], "cross scores keep one that none needs"
    assert graphs[12:] == [True] * 6
    sizes = [size for name, size, *_ in seen if name[0] == "f"]
    assert sizes == [UNLABELED] * 6 + [LABELED] * 2, "labeled and unlabeled images, and both halves, go apart"


def test_running_statistics_are_moved_by_all_four_passes():
    step = rival()
    step.step(batch())
    for segmenter in step.segmenters:
        moved = {int(v) for name, v in segmenter.named_buffers() if name.endswith("num_batches_tracked")}
        assert moved == {4}


@pytest.mark.parametrize(("threshold", "accepted"), [(NOBODY, 0), (EVERYBODY, UNLABELED)])
def test_host_reads(threshold, accepted):
    """A comparison of each score, one more of each if any image is accepted, and 18 numbers for the log."""
    step = rival(threshold)
    without_adam(step)
    with Operations() as operations:
        terms = step.step(batch())
    assert len(terms) == LOGGED
    comparisons = CALLS_OF_SELF_TRAINING * UNLABELED * (2 if accepted else 1)
    assert operations.counts["_local_scalar_dense"] == comparisons + READS


@pytest.mark.parametrize(("threshold", "accepted"), [(NOBODY, 0), (EVERYBODY, UNLABELED)])
def test_copies_to_the_host(threshold, accepted):
    """Labels twice for their one-hot maps; the logits of an accepted image twice, once for an argmax of numpy."""
    step = rival(threshold)
    without_adam(step)
    with Functions() as functions:
        step.step(batch())
    images = CALLS_OF_SELF_TRAINING * accepted
    assert functions.counts["cpu"] == 2 + 2 * images
    assert functions.counts["numpy"] == images
    assert functions.counts["item"] == READS
    assert functions.counts["cross_entropy"] == 4 + (CALLS_OF_SELF_TRAINING if accepted else 0)


def test_one_hot_maps_and_scaled_images_are_made_twice():
    step = rival(NOBODY)
    with Operations() as operations:
        step.step(batch())
    shape = (LABELED, tiny.CLASSES, 32, 32)
    assert operations.converted.count(shape) == 2
    assert operations.counts["min"] == operations.counts["max"] == 4


def test_one_hot_is_zero_where_void():
    labels = torch.tensor([[[0, 2, 255]]])
    maps = reference_step.one_hot(labels, 3)
    assert maps.dtype == torch.float32
    assert maps[0, :, 0].T.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_self_training_is_the_networks_own_label():
    step = rival(0.6)
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, 6, generator=draw, requires_grad=True)
    loss = step._self_training(logits, torch.tensor([[0.7], [0.5], [0.9]]))
    chosen = logits[[0, 2]]
    torch.testing.assert_close(loss, F.cross_entropy(chosen, chosen.argmax(1)))
    loss.backward()
    assert (logits.grad[1] == 0).all() and (logits.grad[[0, 2]] != 0).any()


def test_the_first_epoch_discards_self_training():
    weights = []
    for threshold, epoch in ((EVERYBODY, 0), (NOBODY, 0), (EVERYBODY, 1)):
        torch.manual_seed(0)
        step = rival(threshold)
        step.step(batch(), epoch)
        weights.append(next(step.segmenters[0].parameters()).detach())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_every_network_learns():
    step = rival()
    networks = [*step.segmenters, *step.discriminators]
    before = [[p.detach().clone() for p in network.parameters()] for network in networks]
    terms = step.step(batch())
    for network, old in zip(networks, before, strict=True):
        assert any(not torch.equal(p, q) for p, q in zip(network.parameters(), old, strict=True))
    assert all(value == value and value >= 0 for value in terms.values())


def test_discriminators_learn_from_their_own_loss_only():
    step = rival(NOBODY)
    step.step(batch())
    for discriminator, term in zip(step.discriminators, ("discriminator_0", "discriminator_1"), strict=True):
        assert all(p.grad is not None for p in discriminator.parameters()), term


@pytest.mark.parametrize(("crop", "seen"), [(256, 16 * 16), (320, 20 * 20), (512, 20 * 20)])
def test_pool(crop, seen):
    """The released window where it fits, which leaves out part of a 512 crop; the whole map of a smaller one."""
    judge = reference_step.ImageDiscriminator(2).eval()
    with torch.no_grad():
        cells = judge.trunk(torch.ones(1, 5, crop, crop))
        cells = torch.randn(cells.shape, generator=torch.Generator().manual_seed(0))
        judge.trunk = torch.nn.Identity()
        _, features = judge(cells)
    side = int(seen**0.5)
    torch.testing.assert_close(features, cells[..., :side, :side].mean((2, 3)))


def test_reference_is_contiguous_and_plain():
    step = rival()
    assert all(p.is_contiguous() for network in step.segmenters for p in network.parameters())
    assert [type(optimizer).__name__ for optimizer in (*step.optimizers, *step.judges)] == [
        "SGD",
        "SGD",
        "Adam",
        "Adam",
    ]


def test_the_judges_have_dropout_after_all_convolutions_but_the_last():
    layers = [type(layer).__name__ for layer in reference_step.ImageDiscriminator(3).trunk]
    assert layers == [*("Conv2d", "LeakyReLU", "Dropout2d") * 3, "Conv2d", "LeakyReLU"]


def test_feature_matching_weighs_a_tenth():
    step = rival(NOBODY)
    terms = {"feature_matching_0": torch.tensor(2.0, requires_grad=True), "cps": torch.tensor(3.0, requires_grad=True)}
    step.optimizers = []
    step._learn(terms, 1)
    assert [term.grad.item() for term in terms.values()] == pytest.approx([0.1, 1.0])
