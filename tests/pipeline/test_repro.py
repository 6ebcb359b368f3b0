import os
import signal
import sys
import threading
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import git
from studies import make_settings, write_run

from rrn import config
from rrn.pieces import store
from rrn.pipeline import aside, fetch, missing, repro
from rrn.pipeline import git as held
from rrn.runtime import locking


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A place for locks of its own: a `make repro` in this repository is no matter."""
    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "scratch"))


@pytest.fixture(autouse=True)
def buildable(monkeypatch):
    """Networks can be built; test_buildable.py asks whether."""
    monkeypatch.setattr(repro.buildable, "require_or_note", lambda root, settings: None)


def table(**scores):
    rows = [{"name": "n", "partition": "1of16", "method": k, "miou_mean": v} for k, v in scores.items()]
    return pd.DataFrame(rows)


@pytest.fixture
def results(tmp_path):
    """A repository whose committed results/n/ablation.csv can be compared with a changed one."""
    folder = tmp_path / "results" / "n"
    folder.mkdir(parents=True)
    table(rrn=50.0, cps=40.0).to_csv(folder / "ablation.csv", index=False)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "results")
    return folder / "ablation.csv"


@pytest.mark.parametrize(
    ("scores", "status", "verdict"),
    [
        ({"rrn": 50.5, "cps": 40.0}, 0, "within 1.0 points"),
        ({"rrn": 48.0, "cps": 40.0}, 1, "NOT within 1.0 points"),
        ({"rrn": 50.0}, 1, "NOT within 1.0 points"),
        ({"rrn": 50.0, "cps": 40.0, "new": 3.0}, 1, "NOT within 1.0 points"),
    ],
)
def test_deviations_are_stated(results, capsys, scores, status, verdict):
    table(**scores).to_csv(results, index=False)
    assert repro.compare(results.parents[2], "n", 1.0) == status
    out = capsys.readouterr().out
    assert verdict in out
    assert f"{scores['rrn'] - 50:.1f}" in out


def test_results_that_git_does_not_hold_cannot_be_compared(results, capsys):
    assert repro.compare(results.parents[2], "other", 1.0) == 1
    assert "git has no results/other/ablation.csv" in capsys.readouterr().err


def test_a_comparison_that_cannot_be_made_is_refused_before_anything_runs(quiet, monkeypatch, capsys):
    def never(root, file):
        raise held.NotHeldError(f"git has no {file}: there is no program `git`")

    monkeypatch.setattr(held, "committed", never)
    assert repro.main(["--compare"]) == 1
    assert capsys.readouterr().err == "error: git has no results/shapes/ablation.csv: there is no program `git`\n"
    assert quiet == []


def test_runs_that_are_no_longer_listed_are_set_aside(tmp_path):
    settings = config.load(root=None)
    runs = tmp_path / "runs" / settings.name
    seed, method = settings.ablation.seeds[0], settings.ablation.methods[0]
    partition = settings.ablation.partitions[0]
    kept = [f"train/{partition}-{method}-{seed}", f"warmup/{partition}-{seed}", f"prepare/{partition}-{seed}"]
    stale = ["prepare/1of3-0", "warmup/1of3-0", f"evaluate/{partition}-gone-{seed}"]
    for folder in (*kept, *stale, "ablation"):
        (runs / folder).mkdir(parents=True)
    for place in (runs, runs / "aside"):
        (place / stale[0]).mkdir(parents=True, exist_ok=True)
        (place / stale[0] / "which").write_text(place.name)
    moved = aside.set_aside(tmp_path, settings)
    assert [str(path.relative_to(runs)) for path in moved] == stale
    assert all((runs / folder).is_dir() for folder in (*kept, "ablation"))
    assert all((runs / "aside" / folder).is_dir() for folder in stale)
    assert aside.set_aside(tmp_path, settings) == []
    (runs / stale[0]).mkdir()
    aside.set_aside(tmp_path, settings)
    assert sorted(path.name for path in (runs / "aside/prepare").iterdir()) == ["1of3-0", "1of3-0.2", "1of3-0.3"]
    first, second = ((runs / "aside/prepare" / name / "which").read_text() for name in ("1of3-0", "1of3-0.2"))
    assert (first, second) == ("aside", settings.name)


def test_metrics_of_runs_that_are_no_longer_listed_are_set_aside_too(tmp_path):
    settings = config.load(root=None)
    lists, metrics = settings.ablation, tmp_path / "results" / "per-run" / settings.name
    kept = metrics / f"{lists.partitions[0]}-{lists.methods[0]}-{lists.seeds[0]}.json"
    stale = [metrics / f"{lists.partitions[0]}-{name}.json" for name in (f"{lists.methods[0]}-99", "gone-0")]
    other = tmp_path / "results" / "per-run" / "other" / "all-gone-0.json"
    for path in (kept, *stale, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    folder = tmp_path / "runs" / settings.name / "aside" / "metrics"
    folder.mkdir(parents=True)
    (folder / stale[0].name).write_text("of an earlier time")
    assert aside.set_aside(tmp_path, settings) == sorted(stale)
    places = [folder / f"{stale[0].name}.2", folder / stale[1].name]
    assert [path.read_text() for path in places] == [path.name for path in stale]
    assert (folder / stale[0].name).read_text() == "of an earlier time"
    assert kept.exists() and other.exists(), "another study is not touched"
    assert aside.set_aside(tmp_path, settings) == []


def test_arguments_go_on_to_dvc_after_the_data_is_there(quiet):
    assert repro.main(["train@1of16-rrn-0", "--force"]) == 0
    assert quiet == ["fetch", ("repro", "train@1of16-rrn-0", "--force")]


def test_data_that_cannot_be_fetched_stops_everything_before_anything_is_moved(quiet, monkeypatch, capsys):
    def refuse(command, root):
        raise fetch.FetchError("data/shapes is not as it shipped")

    monkeypatch.setattr(fetch, "fetch", refuse)
    monkeypatch.setattr(aside, "set_aside", lambda root, settings: quiet.append("moved") or [])
    assert repro.main([]) == 1
    assert capsys.readouterr().err == "error: data/shapes is not as it shipped\n"
    assert quiet == []


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Files of a study, and a dvc that says of some of them what is told; the rest is as it should be."""
    names = ("runs/n/train/a/model", "runs/n/train/a/note.txt", "runs/n/evaluate/a/notebook.ipynb", "runs/m/train/a/x")
    for name in (*names, "results/n/ablation.csv", "results/n/notes.md", "data/shapes/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    def tell(uncommitted, ablation):
        answers = {"data": {"uncommitted": uncommitted}, "status": ablation}
        program = f"import json, sys; print(json.dumps({answers!r}[sys.argv[1]]))"
        monkeypatch.setattr(fetch, "DVC", [sys.executable, "-c", program])

    return tell


def files(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_was_changed_or_added_by_hand_in_outputs_is_kept(told, tmp_path):
    before = files(tmp_path)
    changed = {
        "modified": ["runs/n/evaluate/a/", "runs/n/evaluate/a/notebook.ipynb"],
        "added": ["runs/n/train/a/note.txt", "data/shapes/a.png"],
        "unknown": ["runs/n/train/a/model"],
        "deleted": ["runs/n/prepare/a/"],
    }
    told(
        changed, {"ablation": [{"changed deps": {"rrn/a.py": "modified"}}, {"changed outs": {"results/n": "modified"}}]}
    )
    moved = [str(path.relative_to(tmp_path)) for path in aside.keep_changes(tmp_path, "n")]
    assert moved == ["runs/n/evaluate/a/notebook.ipynb", "runs/n/train/a/note.txt", "results/n"]
    after = files(tmp_path)
    assert sorted(after.values()) == sorted(before.values())
    gone = {name.replace("runs/n/", "").replace("results/n", "results") for name in before.keys() - after.keys()}
    assert after.keys() - before.keys() == {f"runs/n/aside/{name}" for name in gone} and len(gone) == 4


@pytest.mark.parametrize("about", [{}, {"ablation": [{"changed deps": {"runs/n/train": "modified"}}]}])
def test_outputs_that_are_as_they_were_written_stay_where_they_are(told, tmp_path, about):
    before = files(tmp_path)
    told({"deleted": ["runs/n/train/b/"]}, about)
    assert aside.keep_changes(tmp_path, "n") == []
    assert files(tmp_path) == before


@pytest.mark.parametrize("arguments", [["--jobs", "1"], ["ablation"], ["train@1of16-rrn-0", "--force"]])
def test_what_was_kept_is_said(quiet, monkeypatch, root, capsys, arguments):
    monkeypatch.setattr(aside, "keep_changes", lambda root, name: [root / "results" / name])
    assert repro.main(arguments) == 0
    assert "results/shapes is not as dvc.lock says: moved to runs/shapes/aside/\n" in capsys.readouterr().out
    assert repro.main(["--dry"]) == 0
    assert "moved" not in capsys.readouterr().out


def test_a_data_set_that_is_not_there_is_named_before_any_stage(quiet, monkeypatch, root, capsys):
    settings = config.load(overrides={"dataset": {"path": "/nowhere"}}, root=root)
    monkeypatch.setattr(config, "load", lambda root: settings)
    assert repro.main([]) == 1
    error = "error: dataset.path: there is no folder /nowhere; set it to where the data set lies, see docs/data.md\n"
    assert (capsys.readouterr().err, quiet) == (error, ["fetch"])


@pytest.fixture
def quiet(monkeypatch):
    """Calls of fetch, of dvc and of the lanes, which run nothing."""
    calls = []
    monkeypatch.setattr(aside, "keep_changes", lambda root, name: [])
    monkeypatch.setattr(fetch, "fetch", lambda command, root: calls.append("fetch"))
    monkeypatch.setattr(repro, "dvc", lambda root, *arguments: calls.append(arguments) or 0)
    monkeypatch.setattr(aside, "set_aside", lambda root, settings: [])
    monkeypatch.setattr(repro, "ahead", lambda root, settings, jobs, wanted=None: calls.append(jobs) or 0)
    return calls


def test_a_second_one_is_refused_before_it_does_anything(quiet, root, capsys):
    with locking.exclusive(root / "dvc.lock"):
        assert repro.main([]) == 3
    assert quiet == []
    assert capsys.readouterr().err.startswith(f"error: {root / 'dvc.lock'} is being written by another process, pid ")
    assert repro.main(["--jobs", "1"]) == 0


def test_settings_that_are_wrong_are_said_before_anything_is_done(quiet, monkeypatch, capsys):
    def wrong(root):
        raise config.SettingsError("train.steps: expected a number")

    monkeypatch.setattr(config, "load", wrong)
    assert repro.main([]) == 1
    assert (capsys.readouterr().err, quiet) == ("error: train.steps: expected a number\n", [])


def test_no_place_for_its_lock(quiet, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RRN_SCRATCH", str(tmp_path / "file"))
    assert repro.main([]) == 1
    assert "let RRN_SCRATCH name a folder that has room and may be written" in capsys.readouterr().err
    assert quiet == []


@pytest.mark.parametrize("jobs", [1, 3])
def test_runs_go_ahead_and_dvc_repro_comes_last(quiet, jobs):
    assert repro.main(["--jobs", str(jobs)]) == 0
    assert quiet == ["fetch", jobs, ("repro",)]


def test_stages_that_are_named_are_dvc_repro_alone(quiet):
    assert repro.main(["train@1of16-rrn-0"]) == 0
    assert quiet == ["fetch", ("repro", "train@1of16-rrn-0")]


def test_a_failure_in_a_lane_is_the_status_of_all(quiet, monkeypatch):
    monkeypatch.setattr(repro, "ahead", lambda root, settings, jobs: 255)
    assert repro.main(["--jobs", "2"]) == 255
    assert quiet == ["fetch"]


@pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--jobs", "2", "train@1of16-rrn-0"]])
def test_jobs_go_with_the_whole_pipeline_only(quiet, capsys, arguments):
    with pytest.raises(SystemExit):
        repro.main(arguments)
    assert "--jobs wants a number from 1, and no arguments of dvc repro" in capsys.readouterr().err
    assert quiet == []


def test_ctrl_c_says_how_to_go_on(quiet, monkeypatch, capsys):
    def stop(root, settings, jobs):
        raise KeyboardInterrupt

    monkeypatch.setattr(repro, "ahead", stop)
    assert repro.main(["--jobs", "2"]) == 130
    assert "stopped; the same command goes on from here" in capsys.readouterr().err


def test_sigterm_is_ctrl_c_to_it_and_afterwards_as_before(quiet, monkeypatch, capsys):
    def stop(root, settings, jobs):
        assert signal.getsignal(signal.SIGTERM) != before
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(repro, "ahead", stop)
    assert repro.main(["--jobs", "2"]) == 130
    assert "stopped; the same command goes on from here" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def heard():
    """Ctrl-C is heard, also where a shell started the tests in the background, which lets programs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_waits_for_dvc_whose_stage_still_saves(tmp_path, monkeypatch):
    saving = "import signal, sys, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    saving += "open('began', 'w').close()\ntime.sleep(1)\nopen('saved', 'w').close()"
    monkeypatch.setattr(repro, "DVC", [sys.executable, "-c", saving])

    def stop():
        while not (tmp_path / "began").exists():
            threading.Event().wait(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        repro.dvc(tmp_path, "repro")
    assert (tmp_path / "saved").exists()


def test_only_stages_that_changed_go_ahead(monkeypatch):
    settings, started = config.load(root=None), []
    monkeypatch.setattr(repro, "dvc", lambda root, *arguments: 0)
    monkeypatch.setattr(repro.scheduler, "changed", lambda command, root: ["train@1of16-rrn-0", "ablation"])
    monkeypatch.setattr(repro.scheduler, "reproduce", lambda command, root, stage, report: started.append(stage) or 0)
    assert repro.ahead(None, settings, 2) == 0
    assert started == ["train@1of16-rrn-0", "evaluate@1of16-rrn-0"]


# ---- only what git lacks


@pytest.fixture
def study(quiet, monkeypatch, tmp_path):
    """A folder with the pieces of four runs, whose settings `repro` reads; data is there, and dvc runs nothing."""
    settings = make_settings(["cps_cutmix", "rrn"], [0, 1])
    for method in settings.ablation.methods:
        for seed in settings.ablation.seeds:
            write_run(tmp_path, settings, method, seed, 40, 42)
            evidence = tmp_path / f"runs/study/evaluate/1of16-{method}-{seed}/evidence.zip"
            evidence.parent.mkdir(parents=True)
            evidence.touch()
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(config, "find_root", lambda: tmp_path)
    monkeypatch.setattr(config, "load", lambda root: settings)
    monkeypatch.setattr(repro.ImageSet, "open", lambda *_: quiet.append("opened"))
    return tmp_path


def piece_of(study, key):
    return study / f"results/finished-runs/study/{key}.json"


SINGLE = [("repro", "--single-item", stage) for stage in ("ablation", "pictures", "report")]


def test_with_all_pieces_nothing_is_trained_and_no_data_is_asked_for(study, quiet, capsys):
    assert repro.main(["--missing"]) == 0
    assert quiet == [("repro", "notebooks"), *SINGLE]
    assert capsys.readouterr().out == "4 of 4 runs lie in results/finished-runs/study\n"


@pytest.mark.parametrize("jobs", [1, 2])
def test_only_runs_without_a_piece_are_trained(study, quiet, capsys, jobs, monkeypatch):
    asked = []
    monkeypatch.setattr(
        repro, "ahead", lambda root, settings, jobs, wanted: asked.append(wanted) or quiet.append(jobs) or 0
    )
    piece_of(study, "1of16-rrn-1").unlink()
    assert repro.main(["--missing", "--jobs", str(jobs)]) == 0
    assert quiet == ["fetch", jobs, ("repro", "evaluate@1of16-rrn-1"), *SINGLE]
    assert asked == [["evaluate@1of16-rrn-1"]]
    out = capsys.readouterr().out
    assert "3 of 4 runs lie in results/finished-runs/study\n" in out
    assert "evaluate@1of16-rrn-1 is run: results/finished-runs/study/1of16-rrn-1.json is missing\n" in out


def test_runs_of_other_settings_are_trained_again(study, quiet, capsys):
    path = piece_of(study, "1of16-rrn-0")
    path.write_text(path.read_text().replace('"steps":500', '"steps":7'))
    assert repro.main(["--missing", "--jobs", "1"]) == 0
    assert ("repro", "evaluate@1of16-rrn-0") in quiet
    assert "1of16-rrn-0.json was made with other settings, train.steps: 7, here 500\n" in capsys.readouterr().out


@pytest.fixture
def other(study, monkeypatch, quiet):
    """The same runs in a study of another name, of which `study` lacks two; verify finds the images of one of them."""
    settings = config.load(root=study)
    for seed in (0, 1):
        piece = store.read_piece(study, settings, f"1of16-rrn-{seed}")
        run = piece.run.model_copy(update={"name": "another", "data": (piece.run.data, "0000")[seed]})
        path = study / f"results/finished-runs/another/{run.key}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(piece.model_copy(update={"run": run}).text())
        piece_of(study, run.key).unlink()
    first = store.read_piece(study, settings, "1of16-cps_cutmix-0").run.data
    monkeypatch.setattr(repro.Report, "read", lambda *_: SimpleNamespace(checksum=first))
    return path


@pytest.mark.usefixtures("other")
def test_the_same_run_of_another_study_is_taken_over_if_its_images_are_the_same(study, quiet, capsys):
    assert repro.main(["--missing", "--jobs", "1"]) == 0
    assert quiet[:3] == ["fetch", ("repro", "verify"), "fetch"]
    assert ("repro", "evaluate@1of16-rrn-1") in quiet, "of other images: trained"
    said = capsys.readouterr().out
    assert "1of16-rrn-0 is that of another: its piece is copied\n3 of 4 runs lie in" in said
    taken = store.read_piece(study, config.load(root=study), "1of16-rrn-0")
    assert (taken.run.name, taken.metrics["miou_mean"]) == ("study", 41)


def test_a_run_of_other_settings_or_a_dry_run_is_taken_over_by_nobody(study, other, quiet):
    assert repro.main(["--missing", "--dry"]) == 0 and quiet == []
    for path in other.parent.iterdir():
        path.write_text(path.read_text().replace('"steps":500', '"steps":7'))
    assert missing.elsewhere(study, config.load(root=study)) == {}
    assert repro.main(["--missing", "--jobs", "1"]) == 0
    assert ("repro", "verify") not in quiet
    assert ("repro", "evaluate@1of16-rrn-0", "evaluate@1of16-rrn-1") in quiet


def test_pictures_are_left_as_they_are_where_runs_were_made_elsewhere_and_it_is_said(study, quiet, capsys):
    (study / "runs/study/evaluate/1of16-rrn-1/evidence.zip").unlink()  # pictures are of first seeds
    assert missing.drawable(study, config.load(root=study), ()) == ["pictures"]
    (study / "runs/study/evaluate/1of16-rrn-0/evidence.zip").unlink()
    assert repro.main(["--missing"]) == 0
    assert quiet == [("repro", "notebooks"), SINGLE[0], SINGLE[2]]
    assert (study / "results/row-pictures").is_dir()
    said = "pictures is not run, and results/row-pictures/study stays: 1 of the runs that it shows were made elsewhere"
    assert said in capsys.readouterr().out


def test_a_dry_run_says_what_would_be_run_and_touches_nothing(study, quiet, capsys):
    piece_of(study, "1of16-rrn-1").unlink()
    assert repro.main(["--missing", "--dry"]) == 0
    stages = "prepare, warmup@1of16-1, train@1of16-rrn-1, evaluate@1of16-rrn-1, ablation, pictures, report"
    assert capsys.readouterr().out.splitlines()[-1] == f"as far as something has changed, this runs {stages}"
    assert quiet == [] and not (study / "results/row-pictures").exists()


def test_a_failure_makes_no_tables(study, quiet, monkeypatch):
    monkeypatch.setattr(repro, "dvc", lambda root, *arguments: quiet.append(arguments) or 255)
    assert repro.main(["--missing"]) == 255
    assert quiet == [("repro", "notebooks")]


def test_missing_takes_no_names_of_stages(quiet, capsys):
    with pytest.raises(SystemExit):
        repro.main(["--missing", "train@1of16-rrn-0"])
    assert "--missing finds its stages itself: leave their names out" in capsys.readouterr().err and quiet == []


def test_only_wanted_stages_go_ahead(monkeypatch):
    settings, started = make_settings(["cps_cutmix", "rrn"], [0, 1]), []
    monkeypatch.setattr(repro, "dvc", lambda root, *arguments: 0)
    monkeypatch.setattr(
        repro.scheduler, "changed", lambda command, root: list(repro.scheduler.order(settings.ablation))
    )
    monkeypatch.setattr(repro.scheduler, "reproduce", lambda command, root, stage, report: started.append(stage) or 0)
    assert repro.ahead(None, settings, 2, ["evaluate@1of16-rrn-1"]) == 0
    assert started == ["warmup@1of16-1", "train@1of16-rrn-1", "evaluate@1of16-rrn-1"]
