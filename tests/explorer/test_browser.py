"""The explorer in a real browser: JupyterLab as `make explore` starts it, Debian's chromium, a slider that is moved."""

import shutil
import urllib.error
import urllib.request
from contextlib import suppress

import evidences
import lab
import psutil
import pytest
from conftest import PATIENCE, ROOT, until

pytestmark = pytest.mark.browser
SHOTS = ROOT / "scratch" / "browser"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A JupyterLab in a copy of what the notebook needs, with evidence of its own."""
    folder = tmp_path_factory.mktemp("lab")
    copy = folder / "copy"
    for name in ("params.yaml", "dvc.yaml", f"notebooks/{lab.NOTEBOOK}"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    evidences.write(copy / "results" / "x" / "evidence.zip", size=(64, 64), region=16, images=12, shown=8)
    evidences.write(copy / "runs" / "x" / "evaluate" / "p-cps_cutmix-0" / "evidence.zip", judged=False)
    with lab.running(copy, folder) as running:
        yield running


def family(server):
    return [server.process, *server.process.children(recursive=True)]


def listening(server):
    """Return the addresses on which the server and its children listen; the kernel's list can be short for a moment."""
    found = set()
    for process in family(server):
        with suppress(psutil.NoSuchProcess):  # a short-lived child of the start
            found |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return found


def status(url):
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_server_listens_on_loopback_and_wants_its_token(server):
    places = until(lambda: listening(server))
    assert places <= {"127.0.0.1", "::1"}
    assert len(server.token) >= 32
    address = f"{server.url}api/contents/{lab.NOTEBOOK}"
    assert status(address) == 403
    assert status(f"{address}?token={server.token}") == 200


def wait(view, happened):
    """Wait while the page goes on."""
    return until(happened, lambda _: view.wait_for_timeout(100))


def changed(view, before):
    """Wait until the picture is another one."""
    return wait(view, lambda: lab.picture(view) != before)


def readout(view):
    return float(lab.control(view, "value").locator(".widget-readout").inner_text())


@pytest.mark.skipif(lab.CHROMIUM is None, reason="there is no chromium here: apt-get install chromium")
def test_a_slider_moves_the_picture(server):
    SHOTS.mkdir(parents=True, exist_ok=True)
    with lab.page(server) as view:
        handle = lab.control(view, "value").locator(".noUi-handle")
        handle.scroll_into_view_if_needed()
        assert readout(view) == 0.75
        before, image = lab.picture(view), view.locator("img.widget-image").first
        pixels = image.screenshot()
        handle.focus()
        for _ in range(12):
            handle.press("ArrowLeft")
        assert changed(view, before)
        wait(view, lambda: readout(view) == pytest.approx(0.63))
        view.wait_for_timeout(1500)  # all twelve are drawn, if the machine is quick
        assert image.screenshot() != pixels
        view.screenshot(path=SHOTS / "slider.png")

        before = lab.picture(view)
        lab.control(view, "keep by").locator("select").select_option(label="confidence")
        assert changed(view, before)
        before = lab.picture(view)
        lab.control(view, "images").locator("select").select_option(label="most disagreement")
        assert changed(view, before)
        before = lab.picture(view)
        lab.control(view, "run").locator("select").select_option(label="runs/x/evaluate/p-cps_cutmix-0")
        assert changed(view, before)
        scores = ["confidence", "probability by both segmenters", "certainty", "agreement"]
        offered = lab.control(view, "keep by").locator("option")
        wait(view, lambda: [" ".join(words.split()) for words in offered.all_inner_texts()[1:]] == scores)
        assert view.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
        view.screenshot(path=SHOTS / "run.png")
    assert all((SHOTS / name).stat().st_size > 10_000 for name in ("slider.png", "run.png"))
