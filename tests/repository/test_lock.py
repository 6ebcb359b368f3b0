"""requirements.lock, pyproject.toml, environment.yml and this environment agree. No network."""

import tomllib
from importlib import metadata

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED_TOGETHER = {"torch": "2.14.1", "torchvision": "0.29.1"}


def lines():
    """Return all lines of the lock, those of other platforms too."""
    texts = [t.split("#")[0].strip() for t in (ROOT / "requirements.lock").read_text().splitlines()]
    return [Requirement(text) for text in texts if text and not text.startswith("-")]


def pins():
    """Return name -> version of what the lock asks for on this platform."""
    here = [r for r in lines() if not r.marker or r.marker.evaluate()]
    return {canonicalize_name(r.name): next(iter(r.specifier)).version for r in here}


def installed(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def direct(extras):
    texts = list(PROJECT["dependencies"])
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


def present_extras():
    """Return the extras that are installed completely; dev is, or this test would not run."""
    every = PROJECT["optional-dependencies"]
    return [e for e in every if all(installed(Requirement(r).name) for r in every[e])]


def of_accelerators(name):
    """Whether a CPU build of torch does without it."""
    return name.startswith(("nvidia-", "cuda-")) or name == "triton"


def asked(package, extras):
    """Yield what an installed package requires here."""
    for text in metadata.requires(package) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if not marker or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement


def reachable():
    """Return name -> requirements of all that the installed extras need, directly or not."""
    found, todo, seen = {}, direct(present_extras()), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        found.setdefault(name, []).append(requirement)
        key = (name, frozenset(requirement.extras))
        if key not in seen and installed(name):
            seen.add(key)
            todo += list(asked(name, requirement.extras))
    return found


def test_every_line_is_an_exact_pin():
    for requirement in lines():
        assert [s.operator for s in requirement.specifier] == ["=="], str(requirement)


@pytest.mark.parametrize("name", PINNED_TOGETHER)
def test_the_two_that_decide_results_are_pinned_as_documented(name):
    assert pins()[name] == PINNED_TOGETHER[name]


def test_lock_satisfies_pyproject_in_all_extras():
    locked = pins()
    for requirement in direct(PROJECT["optional-dependencies"]):
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{requirement} is not in requirements.lock"
        assert requirement.specifier.contains(locked[name], prereleases=True), str(requirement)


def test_environment_is_the_locked_one():
    differing = {}
    for name in reachable():
        have, locked = installed(name), pins().get(name)
        if have is None and of_accelerators(name):
            continue
        if locked is None or have is None or have.split("+")[0] != locked:
            differing[name] = {"locked": locked, "installed": have}
    assert not differing


def test_locked_versions_satisfy_every_requirement():
    locked = pins()
    for name, requirements in reachable().items():
        if name in locked:
            bad = [r for r in requirements if not r.specifier.contains(locked[name], prereleases=True)]
            assert not bad, f"{name} {locked[name]} is locked, but required as {bad}"


def test_nothing_is_locked_in_vain():
    """On this platform; lines with a marker for another one are not looked at."""
    if missing := set(PROJECT["optional-dependencies"]) - set(present_extras()):
        pytest.skip(f"extras {sorted(missing)} are not installed")
    spare = {name for name in set(pins()) - set(reachable()) if not of_accelerators(name)}
    assert not spare


def test_environment_yml_defers_to_the_lock():
    environment = YAML(typ="safe", pure=True).load((ROOT / "environment.yml").read_text())
    *outer, pip = environment["dependencies"]
    assert outer == ["python=3.11", "pip"]
    assert pip == {"pip": ["-c requirements.lock", "-e .[dev,lite0]"]}
