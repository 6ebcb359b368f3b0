"""A JupyterLab as `make explore` starts it, in a folder of its own, and a browser that opens it."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from conftest import PATIENCE, ROOT, until
from playwright.sync_api import TimeoutError, sync_playwright

CHROMIUM = shutil.which("chromium")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
NOTEBOOK = "explore_pseudo_labels.ipynb"
SOON = 10_000
"""Milliseconds after which a step that a page may have dropped is taken again."""
NO_NEWS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}


@dataclass(frozen=True)
class Lab:
    """A server that runs: its process, address and token."""

    process: psutil.Process
    url: str
    token: str

    @property
    def page(self):
        return f"{self.url}lab/tree/{NOTEBOOK}?token={self.token}"


def command():
    """Return the words of `make explore`, whatever make these tests were started by."""
    make = ["make", "--dry-run", "--assume-old=environment", "explore", f"VENV={sys.prefix}"]
    outer = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
    own = {name: value for name, value in os.environ.items() if name not in outer}
    return shlex.split(subprocess.run(make, cwd=ROOT, env=own, capture_output=True, text=True, check=True).stdout)


def surroundings(folder):
    """Return the environment of a server whose settings and files lie in a folder."""
    settings = folder / "config" / "labconfig"
    settings.mkdir(parents=True)
    (settings / "default_setting_overrides.json").write_text(json.dumps(NO_NEWS))
    names = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    names |= {"IPYTHONDIR": "ipython", "HOME": "home", "JUPYTERLAB_SETTINGS_DIR": "user", "MPLCONFIGDIR": "mpl"}
    names |= {"JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    for name in names.values():
        (folder / name).mkdir(exist_ok=True)
    own = {variable: str(folder / name) for variable, name in names.items()}
    return {**os.environ, **own, "PYTHONPATH": str(ROOT)}


@contextmanager
def running(copy, folder):
    """Start the server in a copy of the repository, and end it and its kernels whatever happens."""
    environment = surroundings(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [*command(), "--no-browser", f"--port={port}"]
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(words, cwd=copy, env=environment, stdout=log, stderr=log)
    process = psutil.Process(server.pid)
    try:
        yield described(process, folder)
    finally:
        family = [*process.children(recursive=True), process]
        process.terminate()
        _, alive = psutil.wait_procs(family, timeout=15)
        for left in alive:
            left.kill()
        server.wait(timeout=PATIENCE)


def described(process, folder):
    """Wait until a server says where it listens."""
    path = folder / "runtime" / f"jpserver-{process.pid}.json"

    def listening():
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        assert alive, (folder / "log.txt").read_text()
        return path.exists() and path.read_text().endswith("}")

    until(listening)
    about = json.loads(path.read_text())
    return Lab(process, about["url"], about["token"])


@contextmanager
def page(lab, size=(1500, 1400)):
    """Open the notebook in chromium, and run it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        try:
            view = browser.new_page(viewport=dict(zip(("width", "height"), size, strict=True)))
            view.set_default_timeout(1000 * PATIENCE)
            view.goto(lab.page)
            view.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
            run_all(view)
            yield view
        finally:
            browser.close()


def run_all(view):
    """Run all cells until there are pictures: a page that opens while the kernel starts can miss them."""
    drawn = view.locator("img.widget-image").nth(1)
    until(lambda: _ask(view) and _within(5, drawn.wait_for))


def _ask(view):
    """Ask for all cells; a JupyterLab that is still starting closes its menu or drops the wish, and is asked again."""
    view.keyboard.press("Escape")
    begun = view.locator(".jp-InputPrompt", has_text=re.compile(r"\[(\d+|\*)\]")).first
    menu, entry = view.get_by_role("menuitem", name="Run", exact=True), view.get_by_text("Run All Cells", exact=True)
    return all(_within(1, step) for step in (menu.click, entry.click, begun.wait_for))


def _within(share, step):
    """Take a step of a browser; tell whether it could be done while a page could be expected to."""
    try:
        step(timeout=share * SOON)
    except TimeoutError:
        return False
    return True


def control(view, name):
    """Return a control of the explorer by what stands before it."""
    words = view.locator("label.widget-label").get_by_text(name, exact=True)
    return view.locator(".jupyter-widgets.widget-inline-hbox").filter(has=words)


def picture(view):
    """Return the address of the picture, which is new whenever it is."""
    return view.locator("img.widget-image").first.get_attribute("src")
