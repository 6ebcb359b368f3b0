"""How images go through a model: the protocols of the literature against slow, obvious loops."""

import math
import sys

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from conftest import ROOT
from fake import described
from torch import nn

from rrn import config
from rrn.config import SettingsError
from rrn.data.batches import WholeBatch
from rrn.evaluation import region_tables
from rrn.evaluation.inference import EvaluationShortage, Predictor, many_sizes, windows
from rrn.models.folding import Fold

WHOLE = {"mode": "whole", "window": None, "stride": None, "last": "shifted", "scales": [1.0], "flip": False}


def preset(name):
    """Return `evaluate` as a preset leaves it."""
    return config.merge(config.read(ROOT / "params.yaml"), config.read(ROOT / "presets" / f"{name}.yaml"))["evaluate"]


LITERATURE = {
    "VOC whole": preset("voc"),
    "VOC pad 512": {**preset("voc"), "mode": "pad", "window": [512, 512]},
    "Cityscapes sliding 800": preset("cityscapes"),
}
SMALL = {
    "VOC whole": WHOLE,
    "VOC pad": {**WHOLE, "mode": "pad", "window": [16, 15]},
    "Cityscapes sliding": {**WHOLE, "mode": "sliding", "window": [8, 7], "stride": [5, 4]},
    "UniMatch sliding": {**WHOLE, "mode": "sliding", "window": [8, 7], "stride": [5, 4], "last": "ragged"},
}
"""The same rules for images of 13 x 12 pixels."""


def protocol(values=WHOLE, **changes):
    """Return settings of `evaluate`, as a user would write them."""
    return tiny.settings(changes={"evaluate": {**values, **changes}}).evaluate


def looking(model, values=WHOLE, batch=3, pixels=1 << 20, **changes):
    """Return what looks at images through a model, so many at once."""
    at_once = {"evaluation_batch": batch, "evaluation_pixels": pixels}
    return Predictor(model, protocol(values, **changes), tiny.settings(changes={"loading": at_once}).loading)


class Toy(nn.Module):
    """Two segmenters whose answers depend on where a window ends, on all that is in it, and on left and right."""

    device = torch.device("cpu")
    region = 4

    def __init__(self, pixelwise=False):
        super().__init__()
        self.pixelwise, self.passes = pixelwise, []
        self.segmenters = nn.ModuleList(
            nn.Conv2d(3, 4, 1 if pixelwise else 5, padding="same", bias=False) for _ in range(2)
        )
        draw = torch.Generator().manual_seed(0)
        for network in self.segmenters:
            network.weight.data = torch.randn(network.weight.shape, generator=draw) / network.weight[0].numel() ** 0.5
            network.register_buffer("mean", torch.tensor([100, 120, 140]).view(1, 3, 1, 1) / 255)

    @torch.no_grad()
    def logits(self, images):
        assert images.dtype == torch.uint8
        self.passes.append(tuple(images.shape))
        seen = (images / 255 - self.segmenters[0].mean) / 0.2
        answers = torch.stack([network(seen) for network in self.segmenters])
        return answers if self.pixelwise else answers + 0.5 * answers.std((-2, -1), correction=0, keepdim=True)

    def region_scores(self, logits, images):
        return logits[:, :, 0, ::4, ::4].sigmoid()


def some_images(height=13, width=12, count=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=draw)


# ---- The reference: one image, one window, one pixel at a time


def slow(model, image, values):
    """Return probabilities [2, C, H, W], as the literature's loops compute them; image uint8 [3, H, W]."""
    height, width = image.shape[1:]
    total = np.zeros((2, 4, height, width))
    for scale in values["scales"]:
        size = round(height * scale), round(width * scale)
        resized = torch.from_numpy(np.rint(slow_resize(image.numpy().astype(float), size))).to(torch.uint8)
        seen = slow_windows(model, resized, values)
        total += np.stack([slow_resize(branch, (height, width)) for branch in seen])
    return total / len(values["scales"])


def slow_windows(model, image, values):
    if values["mode"] == "whole":
        return slow_answer(model, image, values)
    tall, wide = values["window"]
    margin = [0, 0]
    if values["mode"] == "pad" or values["last"] == "shifted":
        image, margin, inner = slow_pad(image, tall, wide), *slow_margin(image, tall, wide)
    else:
        inner = image.shape[1:]
    height, width = image.shape[1:]
    down, right = values["stride"] or values["window"]
    shifted = values["mode"] == "pad" or values["last"] == "shifted"
    total, count = np.zeros((2, 4, height, width)), np.zeros((height, width))
    for top, bottom in slow_starts(height, tall, down, shifted):
        for left, right_end in slow_starts(width, wide, right, shifted):
            answer = slow_answer(model, image[:, top:bottom, left:right_end], values)
            for y in range(top, bottom):
                for x in range(left, right_end):
                    total[:, :, y, x] += answer[:, :, y - top, x - left]
                    count[y, x] += 1
    assert count.min() >= 1
    mean = total / count
    return mean[:, :, margin[0] : margin[0] + inner[0], margin[1] : margin[1] + inner[1]]


def slow_starts(length, window, stride, shifted):
    """CPS counts the windows and moves back the last one; UniMatch goes on while there is a pixel."""
    if not shifted:
        found, start = [], 0
        while start < length:
            found.append((start, min(length, start + window)))
            start += stride
        return found
    number = math.ceil((length - window) / stride) + 1
    ends = [min(i * stride + window, length) for i in range(number)]
    return [(end - window, end) for end in ends]


def slow_margin(image, tall, wide):
    """Half of what lacks, rounded down, is above and on the left."""
    height, width = image.shape[1:]
    return [max(tall - height, 0) // 2, max(wide - width, 0) // 2], (height, width)


def slow_pad(image, tall, wide):
    (top, left), (height, width) = slow_margin(image, tall, wide)
    canvas = torch.empty(3, max(tall, height), max(wide, width), dtype=torch.uint8)
    for channel, color in enumerate((100, 120, 140)):
        canvas[channel] = color
    for y in range(height):
        for x in range(width):
            canvas[:, y + top, x + left] = image[:, y, x]
    return canvas


def slow_answer(model, image, values):
    probabilities = model.logits(image[None])[:, 0].softmax(1).double().numpy()
    if values["flip"]:
        mirrored = model.logits(image[None].flip(3))[:, 0].softmax(1).double().numpy()
        probabilities = (probabilities + mirrored[:, :, :, ::-1]) / 2
    return probabilities


def slow_resize(values, size):
    """Interpolate [K, H, W] between the four nearest pixel centers."""
    height, width = values.shape[1:]
    out = np.empty((len(values), *size))
    for y in range(size[0]):
        for x in range(size[1]):
            v = min(max((y + 0.5) * height / size[0] - 0.5, 0), height - 1)
            u = min(max((x + 0.5) * width / size[1] - 0.5, 0), width - 1)
            top, left = math.floor(v), math.floor(u)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            above = values[:, top, left] * (1 - u + left) + values[:, top, right] * (u - left)
            below = values[:, bottom, left] * (1 - u + left) + values[:, bottom, right] * (u - left)
            out[:, y, x] = above * (1 - v + top) + below * (v - top)
    return out


def compare(values, images, batch=3):
    model = Toy()
    logits = looking(model, values, batch).logits(images)
    assert logits.shape == (2, len(images), 4, *images.shape[2:]) and logits.dtype == torch.float32
    expected = np.stack([slow(model, image, values) for image in images], axis=1)
    found = logits.softmax(2).numpy()
    rounding = 2e-6 if values["scales"] == [1.0] else 5e-3  # a resized pixel half-way between two bytes may be either
    np.testing.assert_allclose(found, expected, atol=rounding, rtol=0)
    assert np.abs(found - expected).mean() < rounding / 4
    if values != WHOLE:
        np.testing.assert_allclose(logits.exp().numpy(), found, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", SMALL)
def test_protocols_equal_the_loops_of_the_literature(name):
    compare(SMALL[name], some_images())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("changes", [{"flip": True}, {"scales": [0.5, 1.0, 1.25]}, {"scales": [0.75], "flip": True}])
def test_other_sizes_and_mirror_images(name, changes):
    compare({**SMALL[name], "window": SMALL[name]["window"] and [17, 16], **changes}, some_images())
    if "sliding" in name:
        compare({**SMALL[name], **changes}, some_images(count=1))


@pytest.mark.parametrize("last", ["shifted", "ragged"])
@pytest.mark.parametrize(("height", "width"), [(5, 4), (8, 7), (3, 20), (20, 5), (9, 8), (13, 11), (11, 16), (1, 1)])
def test_windows_on_images_of_any_size(last, height, width):
    compare({**SMALL["Cityscapes sliding"], "last": last}, some_images(height, width))


@pytest.mark.parametrize(("height", "width"), [(16, 15), (15, 15), (11, 10), (1, 14)])
def test_padding_is_centerd_and_cut_off_again(height, width):
    compare(SMALL["VOC pad"], some_images(height, width))


# ---- The literature's own numbers


def test_presets_are_settings():
    for values in LITERATURE.values():
        assert protocol(values).mode == values["mode"]


def test_the_preset_of_voc_looks_at_whole_images_once():
    model, images = Toy(), some_images(37, 50, count=2)
    found = looking(model, LITERATURE["VOC whole"]).logits(images)
    assert model.passes == [(2, 3, 37, 50)]
    expected = np.stack([slow(model, image, WHOLE) for image in images], axis=1)
    np.testing.assert_allclose(found.softmax(2).numpy(), expected, atol=2e-6, rtol=0)


def test_windows_of_cityscapes():
    values = LITERATURE["Cityscapes sliding 800"]
    assert (values["mode"], values["last"], values["scales"], values["flip"]) == ("sliding", "shifted", [1.0], False)
    assert values["stride"] == [math.ceil(800 * 2 / 3)] * 2
    found = windows((1024, 2048), tuple(values["window"]), tuple(values["stride"]))
    rows, columns = ((0, 800), (224, 1024)), ((0, 800), (534, 1334), (1068, 1868), (1248, 2048))
    assert [((r.start, r.stop), (c.start, c.stop)) for r, c in found] == [(r, c) for r in rows for c in columns]


def test_ragged_windows_of_cityscapes():
    found = windows((1024, 2048), (801, 801), (534, 534), ragged=True)
    rows, columns = ((0, 801), (534, 1024)), ((0, 801), (534, 1335), (1068, 1869), (1602, 2048))
    assert [((r.start, r.stop), (c.start, c.stop)) for r, c in found] == [(r, c) for r in rows for c in columns]


def test_a_stride_that_divides_adds_no_window():
    assert [c.start for _, c in windows((4, 10), (4, 4), (3, 3))] == [0, 3, 6]
    assert [c.start for _, c in windows((4, 4), (4, 4), (3, 3))] == [0]


class Ramp(Toy):
    """The probability of the second of two classes is that of a pixel's place in its window."""

    def logits(self, images):
        self.passes.append(tuple(images.shape))
        height, width = images.shape[2:]
        place = (torch.arange(1, height + 1).view(-1, 1) / height + torch.arange(1, width + 1) / width) / 2.1
        return torch.stack([1 - place, place]).expand(2, len(images), 2, height, width).log()


def test_the_preset_of_cityscapes_is_the_loop_of_the_literature():
    model = Ramp()
    found = looking(model, LITERATURE["Cityscapes sliding 800"]).logits(some_images(1024, 2048, count=1))
    assert sum(shape[0] for shape in model.passes) == 8 and {shape[2:] for shape in model.passes} == {(800, 800)}
    place = (np.arange(1, 801)[:, None] / 800 + np.arange(1, 801) / 800) / 2.1
    total, count = np.zeros((1024, 2048)), np.zeros((1024, 2048))
    for top, bottom in slow_starts(1024, 800, math.ceil(800 * 2 / 3), shifted=True):
        for left, right in slow_starts(2048, 800, math.ceil(800 * 2 / 3), shifted=True):
            total[top:bottom, left:right] += place
            count[top:bottom, left:right] += 1
    np.testing.assert_allclose(found.exp()[0, 0, 1].numpy(), total / count, atol=2e-6, rtol=0)


def test_a_voc_image_stands_in_the_middle_of_512_pixels():
    model, images = Toy(), some_images(375, 500, count=1)
    logits = looking(model, LITERATURE["VOC pad 512"]).logits(images)
    assert model.passes == [(1, 3, 512, 512)]
    normalized = (images / 255 - model.segmenters[0].mean) / 0.2
    padded = F.pad(normalized, (6, 6, 68, 69))
    for network, found in zip(model.segmenters, logits, strict=True):
        answers = network(padded)
        answers = answers + 0.5 * answers.std((-2, -1), correction=0, keepdim=True)
        expected = answers.softmax(1)[..., 68 : 68 + 375, 6 : 6 + 500]
        torch.testing.assert_close(found.softmax(1), expected, atol=1e-5, rtol=0)


# ---- Known answers


@pytest.mark.parametrize("name", SMALL)
def test_a_network_that_sees_one_pixel_says_the_same_under_any_protocol(name):
    model, images = Toy(pixelwise=True), some_images()
    expected = model.logits(images).softmax(2)
    for flip in (False, True):
        found = looking(model, SMALL[name], flip=flip).logits(images).softmax(2)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


class Brightness(Toy):
    """The probability of the second of two classes is the mean brightness of the window."""

    def logits(self, images):
        mean = (images / 255).mean((1, 2, 3)).view(1, -1, 1, 1, 1).expand(2, -1, 1, *images.shape[2:])
        return torch.cat([1 - mean, mean], dim=2).log()


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("shifted", [1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 4]),  # columns 0-3: 1/2, 2-5: 0, 3-6: 1/4
        ("ragged", [1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 6, 1 / 6, 2 / 3]),  # columns 0-3, 2-5, 4-6: 1/3, 6: 1
    ],
)
def test_windows_are_averaged_by_count(last, expected):
    images = torch.zeros(1, 3, 1, 7, dtype=torch.uint8)
    images[..., [0, 1, 6]] = 255
    values = {**SMALL["Cityscapes sliding"], "window": [1, 4], "stride": [1, 2], "last": last}
    found = looking(Brightness(), values).logits(images).exp()[0, 0, 1, 0]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_impossible_classes_stay_finite():
    found = looking(Brightness(), flip=True).logits(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    assert found.isfinite().all() and found.softmax(2)[:, :, 0].eq(1).all()


# ---- Folded


@torch.no_grad()
def settled(row):
    """Return a tiny model whose norms and answers are far from those of the start."""
    network, draw = tiny.model(row), torch.Generator().manual_seed(0)
    for module in network.segmenters.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    for segmenter in network.segmenters:
        segmenter(network.normalize(some_images(64, 64, count=4)))
        head = segmenter.network.segmentation_head[0]
        head.weight.copy_(torch.randn(head.weight.shape, generator=draw))
    return network


@torch.no_grad()
def one_window_at_a_time(network, image, window, down, right):
    """Probabilities [2, C, H, W] of uint8 [3, H, W], by the loop that everybody writes."""
    height, width = image.shape[1:]
    total, count = torch.zeros(2, tiny.CLASSES, height, width), torch.zeros(height, width)
    for top, bottom in slow_starts(height, window, down, shifted=True):
        for left, right_end in slow_starts(width, window, right, shifted=True):
            here = (..., slice(top, bottom), slice(left, right_end))
            count[here] += 1
            for k, segmenter in enumerate(network.segmenters):
                total[k][here] += segmenter(segmenter.normalize(image[None][here])).softmax(1)[0]
    return total / count


@pytest.mark.parametrize("batch", [1, 4])
def test_folded_windows_are_those_of_the_obvious_loop(batch):
    network, images = settled("cps"), some_images(70, 90)
    values = {**SMALL["Cityscapes sliding"], "window": [48, 48], "stride": [31, 33], "folded": True}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = looking(network, values, batch).logits(images).exp()
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    expected = torch.stack([one_window_at_a_time(network.eval(), image, 48, 31, 33) for image in images], dim=1)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_folded_is_folded_and_region_scores_are_not():
    network, images, seen = settled("rrn"), some_images(37, 41, count=3), []
    for norm in (m for m in network.segmenters.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.register_forward_hook(lambda *_: seen.append("normalized"))
    predictor = looking(network, folded=True)
    predictor.logits(images)
    seen.clear()  # what goes to what is found out the first time
    found = predictor.logits(images)
    assert seen == []
    logits = network.logits(images)
    assert seen
    torch.testing.assert_close(found.softmax(2), logits.softmax(2), atol=1e-5, rtol=0)
    assert predictor.segmenters is network.segmenters
    assert torch.equal(predictor.region_scores(logits, images), network.region_scores(logits, images))


def test_folded_answers_follow_a_training():
    network, images = settled("cps"), some_images(37, 41)
    predictor = looking(network, folded=True)
    before = predictor.logits(images)
    optimizer = torch.optim.SGD(network.segmenters.parameters(), lr=0.01, fused=True)
    for segmenter in network.segmenters:
        segmenter(network.normalize(images)).square().mean().backward()
    optimizer.step()
    after = predictor.logits(images).softmax(2)
    assert (after - before.softmax(2)).abs().max() > 1e-3
    torch.testing.assert_close(after, network.logits(images).softmax(2), atol=1e-5, rtol=0)


def whole_batches(*sizes):
    labels = [torch.randint(3, (1, *size), generator=torch.Generator().manual_seed(0)) for size in sizes]
    images = [some_images(*size, count=1) for size in sizes]
    return [WholeBatch(i, label, (str(n),)) for n, (i, label) in enumerate(zip(images, labels, strict=True))]


@pytest.mark.parametrize("name", ["VOC whole", "Cityscapes sliding"])
def test_a_look_at_many_images_folds_once_and_follows_the_weights(monkeypatch, name):
    renewed, renew = [], Fold.renew
    monkeypatch.setattr(Fold, "renew", lambda fold: (renewed.append(fold), renew(fold))[1])
    network, batches = settled("rrn"), whole_batches((37, 41), (40, 33), (37, 41))
    values = {**SMALL[name], **({} if name == "VOC whole" else {"window": [32, 32], "stride": [20, 20]})}
    predictor = looking(network, values, folded=True)
    for change in (0.0, 0.1):
        with torch.no_grad():
            for parameter in network.segmenters.parameters():
                parameter.add_(change)
        renewed.clear()
        seen = list(region_tables.predict_batches(predictor, batches))
        assert len(renewed) == len({id(fold) for fold in renewed}) > 20, "each once"
        once = len(renewed)
        expected = [predictor.logits(batch.images) for batch in batches]
        assert len(renewed) == 4 * once, "outside of a look each call follows the weights"
        assert all(torch.equal(found.logits, one) for found, one in zip(seen, expected, strict=True))
    assert network.segmenters is predictor.segmenters


def test_a_look_that_is_left_early_leaves_nothing_behind():
    network, (first, second) = settled("cps"), whole_batches((37, 41), (37, 41))
    predictor = looking(network, folded=True)
    left = region_tables.predict_batches(predictor, [first, second])
    before = next(left).logits
    change_head(network)
    after = predictor.logits(first.images)
    torch.testing.assert_close(after, network.logits(first.images), atol=1e-4, rtol=1e-4)
    assert (after - before).abs().max() > 1e-3


@torch.no_grad()
def change_head(network):
    for segmenter in network.segmenters:
        norms = [m for m in segmenter.modules() if isinstance(m, nn.BatchNorm2d)]
        norms[-1].weight.mul_(3)


def test_a_model_that_is_no_predictor_is_looked_at_as_it_is():
    network, (batch,) = settled("rrn"), whole_batches((37, 41))
    (seen,) = region_tables.predict_batches(network, [batch])
    assert torch.equal(seen.logits, network.logits(batch.images))


# ---- Many sizes

SIZES = [(37, 41), (40, 33), (64, 50)]
ONE_SIZE = {"VOC whole": False, "VOC pad": True, "Cityscapes sliding": True, "UniMatch sliding": False}


def wide(name):
    """Return a protocol with windows that a real network can see."""
    sizes = {"VOC whole": {}, "VOC pad": {"window": [64, 64]}}
    return protocol({**SMALL[name], **sizes.get(name, {"window": [32, 32], "stride": [20, 20]})})


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_cudnn_tries_out_nothing_for_sizes_that_come_once(monkeypatch, name, before):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
    network, seen = tiny.model("cps"), []
    network.segmenters[0].register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    predictor = Predictor(network, wide(name))
    for size in SIZES:
        predictor.logits(some_images(*size, count=1))
        assert torch.backends.cudnn.benchmark == before
    assert set(seen) == {before and ONE_SIZE[name]}


def test_what_cudnn_did_comes_back_after_an_error(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with pytest.raises(ZeroDivisionError), many_sizes():
        assert not torch.backends.cudnn.benchmark
        raise ZeroDivisionError
    assert torch.backends.cudnn.benchmark


def test_where_nothing_is_compiled_the_compiler_is_not_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    monkeypatch.setattr(torch.compiler, "set_stance", lambda _: pytest.fail("loads the compiler"))
    with many_sizes():
        pass


@pytest.mark.parametrize("name", SMALL)
def test_sizes_that_come_once_are_not_compiled(name):
    torch._dynamo.reset()
    compiled, network = [], tiny.model("cps")

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    for segmenter in network.segmenters:
        segmenter.network.compile(backend=backend)
    plain, predictor = Predictor(tiny.model("cps"), wide(name)), Predictor(network, wide(name))
    for size in SIZES:
        images = some_images(*size, count=1)
        torch.testing.assert_close(predictor.logits(images), plain.logits(images), atol=1e-5, rtol=1e-4)
    assert bool(compiled) == ONE_SIZE[name]
    compiled.clear()
    network.segmenters[0].network(torch.rand(2, 3, 96, 96))
    assert compiled, "afterwards it is compiled as before"
    torch._dynamo.reset()


# ---- Passes, defaults, errors


@pytest.mark.parametrize("last", ["shifted", "ragged"])
def test_passes_hold_windows_of_one_size_and_at_most_a_batch(last):
    images, values = some_images(count=3), {**SMALL["Cityscapes sliding"], "last": last, "flip": True}
    found, shapes = {}, {}
    for batch in (1, 4, 100):
        model = Toy()
        found[batch], shapes[batch] = looking(model, values, batch).logits(images), model.passes
        assert max(shape[0] for shape in model.passes) <= batch
        torch.testing.assert_close(found[batch], found[1], atol=1e-6, rtol=1e-5)
    sizes = {shape[2:] for shape in shapes[1]}
    assert len(shapes[100]) == 2 * len(sizes)  # one pass a size, and one of mirror images
    assert sum(shape[0] for shape in shapes[4]) == len(shapes[1])


@pytest.mark.parametrize("name", ["Cityscapes sliding", "UniMatch sliding", "VOC pad"])
@pytest.mark.parametrize(("pixels", "most"), [(1, 1), (2 * 16 * 15, 2), (1 << 20, 5)])
def test_a_pass_has_at_most_so_many_pixels_or_one_window(name, pixels, most):
    images = some_images(count=5)
    model, free = Toy(), Toy()
    found = looking(model, SMALL[name], 100, pixels=pixels).logits(images)
    torch.testing.assert_close(found, looking(free, SMALL[name], 100).logits(images), atol=1e-6, rtol=1e-5)
    assert all(shape[0] == 1 or shape[0] * shape[2] * shape[3] <= pixels for shape in model.passes)
    if name == "VOC pad":
        assert max(shape[0] for shape in model.passes) == most


def test_images_do_not_influence_each_other():
    images = some_images(count=3)
    predictor = looking(Toy(), SMALL["Cityscapes sliding"], 4)
    together = predictor.logits(images)
    alone = torch.cat([predictor.logits(image[None]) for image in images], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_the_default_changes_no_bit():
    network, images = tiny.model("rrn"), some_images(37, 41, count=3)
    predictor = Predictor(network, tiny.settings().evaluate)
    logits = network.logits(images)
    assert torch.equal(predictor.logits(images), logits)
    assert torch.equal(predictor.region_scores(logits, images), network.region_scores(logits, images))
    assert (predictor.region, predictor.device) == (network.region, network.device)
    labels = torch.randint(3, (3, 37, 41), generator=torch.Generator().manual_seed(0))
    batch = WholeBatch(images, labels, ("a", "b", "c"))
    ours, theirs = (described(model, [batch], ("a", "b", "c")) for model in (predictor, network))
    assert ours.equals(theirs)


@pytest.mark.parametrize("name", SMALL)
def test_a_real_network_can_be_measured_under_every_protocol(name):
    network, images = tiny.model("rrn"), some_images(33, 50)
    window = SMALL[name]["window"] and [64, 64] if name == "VOC pad" else SMALL[name]["window"] and [32, 32]
    stride = SMALL[name]["stride"] and [20, 24]
    predictor = looking(network, {**SMALL[name], "window": window, "stride": stride}, flip=True)
    batch = WholeBatch(images, torch.zeros(2, 33, 50, dtype=torch.int64), ("a", "b"))
    table = described(predictor, [batch], ("a", "b", "c"))
    assert table.groupby("segmenter")["pixels"].sum().tolist() == [2 * 33 * 50] * 2
    assert np.isfinite(table[["region_score", "other_score", "confidence"]]).all(axis=None) and network.training


def test_padding_is_nearly_nothing_to_a_real_network():
    network, seen = tiny.model("rrn"), []
    network.logits = lambda images: seen.append(network.normalize(images)) or torch.zeros(2, 1, 3, 64, 64)
    looking(network, SMALL["VOC pad"], window=[64, 64]).logits(some_images(20, 30, count=1))
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[22:42, 17:47] = False
    assert seen[0][..., outside].abs().max() < 0.5 / 255 / 0.2
    assert seen[0][..., ~outside].abs().mean() > 0.5


@pytest.mark.parametrize(("height", "width", "scales"), [(17, 12, [1.0]), (13, 16, [1.0]), (13, 12, [1.0, 1.5])])
def test_an_image_that_does_not_fit_says_so(height, width, scales):
    predictor = looking(Toy(), SMALL["VOC pad"], scales=scales)
    text = rf"evaluate.mode: pad, but an image of {round(height * scales[-1])} x {round(width * scales[-1])} pixels.*"
    with pytest.raises(SettingsError, match=text + r"does not fit window: \[16, 15\]; set a larger window, or mode"):
        predictor.logits(some_images(height, width))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"window": [8, 8]}, "window and stride are for mode: pad or sliding; set both to null, or another mode"),
        ({"stride": [8, 8]}, "window and stride are for mode: pad or sliding; set both to null, or another mode"),
        ({"mode": "pad"}, r"mode: pad needs window: \[height, width\]"),
        ({"mode": "sliding", "stride": [8, 8]}, r"mode: sliding needs window: \[height, width\]"),
        ({"mode": "pad", "window": [8, 8], "stride": [4, 4]}, "stride is for mode: sliding; set stride: null, or mode"),
        ({"mode": "sliding", "window": [8, 8]}, r"needs window: \[height, width\] and stride: \[height, width\]"),
        (
            {"mode": "sliding", "window": [8, 8], "stride": [8, 9]},
            r"stride: \[8, 9\] is larger than window: \[8, 8\], which would leave pixels that no window sees",
        ),
        ({"mode": "slide"}, "evaluate.mode"),
        ({"scales": []}, "evaluate.scales"),
        ({"scales": [0.0]}, "evaluate.scales"),
        ({"last": "dropped"}, "evaluate.last"),
    ],
)
def test_protocols_that_cannot_be_are_refused(changes, text):
    with pytest.raises(SettingsError, match=text):
        config.resolve(tiny.params(), None, {"evaluate": {**WHOLE, **changes}})


ONE = "  loading.evaluation_batch: 1 looks at one image or window at a time, with the same answers"
COPIES = "  evaluate.folded: false keeps no copies of the networks"
WINDOW = "  evaluate.mode: sliding, with a smaller window, is another protocol"


@pytest.mark.parametrize(
    ("images", "changes", "ways"),
    [
        (2, {}, [ONE, WINDOW]),
        (1, {}, [WINDOW]),
        (1, {"batch": 1, **SMALL["Cityscapes sliding"]}, [WINDOW]),
        (1, SMALL["Cityscapes sliding"], [ONE, WINDOW]),
    ],
)
def test_images_that_do_not_fit_into_memory_name_what_needs_less(monkeypatch, images, changes, ways):
    model = Toy()

    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "logits", full)
    with pytest.raises(EvaluationShortage) as caught:
        looking(model, **changes).logits(torch.zeros(images, 3, 13, 12, dtype=torch.uint8))
    first = f"looking at images of shape [{images}, 3, 13, 12] does not fit into memory (CUDA out of memory); what"
    assert str(caught.value).splitlines() == [f"{first} would need less:", *ways]


def test_copies_of_the_networks_are_named_where_they_are_kept(monkeypatch):
    predictor = looking(tiny.model("cps").eval(), folded=True)

    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(predictor, "_logits", full)
    with pytest.raises(EvaluationShortage) as caught:
        predictor.logits(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert str(caught.value).splitlines()[1:] == [COPIES, WINDOW]
