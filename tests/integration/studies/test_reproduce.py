"""A reproduction in small, on Ray: two waves, killed and continued, a page in a browser."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from fedfuse_ray.errors import InputError
from fedfuse_ray.studies.reproducing import running, scale
from fedfuse_ray.studies.reproducing.cells import ENCODERS
from fedfuse_ray.studies.reproducing.markdown import document
from fedfuse_ray.studies.reproducing.output import write_pages
from fedfuse_ray.studies.sweeping.live import LiveTable

pytestmark = pytest.mark.ray

STUDIES = ("privacy", "transfer")
SMALL = replace(
    scale.QUICK,
    base="tiny",
    seeds=(0,),
    epsilons=(1.0, 8.0),
    pretraining_rounds=2,
    few={"train": 0.2, "validation": 0.2, "test": 0.6},
)


@pytest.fixture(scope="module")
def small(tmp_path_factory, ray_address):
    """A reproduction of two studies; the folder, and what it found."""
    folder = tmp_path_factory.mktemp("reproduce")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "scale_of", lambda name: SMALL)
        running.begin(SMALL, STUDIES, folder)
        found = running.run(folder, LiveTable([], quiet=True), "reproduce in small")
        yield folder, found


def test_transfers_run_after_the_runs_whose_weights_they_take(small):
    _, found = small
    rows = found.studies["transfer"]
    assert {row.at["start"] for row in rows} >= {ENCODERS}
    assert all(0.0 <= row.accuracy["overall"].mean <= 1.0 for row in rows)
    assert found.row("privacy", epsilon=8.0).epsilon.mean > 1.0


def test_continued_it_runs_what_is_missing_and_finds_the_same(small):
    folder, found = small
    lost = found.studies["transfer"][0].runs[0]
    shutil.rmtree(folder / lost / "checkpoints")
    (folder / lost / "outcome.json").unlink()
    again = running.run(folder, LiveTable([], quiet=True), "reproduce in small")
    assert again.studies == found.studies


def test_a_sweep_is_not_taken_for_a_reproduction(tmp_path):
    from fedfuse_ray.studies.sweeping.loading import validate_sweep
    from fedfuse_ray.studies.sweeping.store import SweepStore

    SweepStore(tmp_path).start(validate_sweep({"base": "tiny", "space": {"seed": [0]}}), [])
    with pytest.raises(InputError, match="not a reproduction"):
        running.asked(tmp_path)


def test_a_reader_clicks_through_the_page_without_network(small):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    folder, found = small
    path = write_pages(folder)
    assert "| 8 |" in document(found)
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(offline=True)
        tab = context.new_page()
        wrong = []
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda r: wrong.append(r.url) if not r.url.startswith("file:") else None)
        tab.goto(path.as_uri())
        tab.click("nav a[href='#transfer']")
        assert tab.url.endswith("#transfer")
        tab.wait_for_selector("#transfer .js-plotly-plot")
        entries = tab.locator("#transfer .legend .traces")
        before = tab.locator("#transfer .barlayer .trace").count()
        entries.first.click()
        tab.wait_for_function(
            "n => document.querySelectorAll('#transfer .barlayer .trace').length < n", arg=before
        )
        tab.click("#transfer details summary")
        tab.click("#transfer details a >> nth=0")
        tab.wait_for_load_state()
        assert "/trials/" in tab.url
        assert tab.locator("h1").count() == 1
        tab.go_back()
        assert tab.url.startswith(path.as_uri())
        browser.close()
    assert wrong == []
