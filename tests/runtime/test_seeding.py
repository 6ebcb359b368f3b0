import torch

from rrn.runtime import seeding


def test_a_draw_depends_on_all_four_and_on_nothing_else():
    base = seeding.derive_seed(1, "crop", 2, 3)
    torch.rand(5)
    assert seeding.derive_seed(1, "crop", 2, 3) == base == 8132046155821505338
    others = {
        seeding.derive_seed(*key) for key in [(2, "crop", 2, 3), (1, "box", 2, 3), (1, "crop", 3, 3), (1, "crop", 2, 4)]
    }
    assert len(others | {base}) == 5
    assert seeding.derive_seed(1, "crop", 1, 11) != seeding.derive_seed(1, "crop", 11, 1)


def test_seeds_fit_a_generator_and_spread():
    seeds = [seeding.derive_seed(s, "x", step, i) for s in range(8) for step in range(8) for i in range(8)]
    assert len(set(seeds)) == 512 and min(seeds) >= 0 and max(seeds) < 2**63
    numbers = torch.tensor([torch.rand((), generator=seeding.generator(0, "x", i)).item() for i in range(400)])
    assert 0.45 < numbers.mean() < 0.55


def test_seeded_serves_one_draw_and_leaves_no_trace():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeding.fork(0, "dropout", 4):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeding.fork(0, "dropout", 4):
        assert torch.equal(torch.rand(3), first)
    with seeding.fork(0, "dropout", 5):
        assert not torch.equal(torch.rand(3), first)
