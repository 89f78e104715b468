"""On a page of every kind, what users wrote is text: no tag, in no chart, in no script."""

from __future__ import annotations

import shutil

import pytest

from fedfuse_ray.audit.page import audit_page
from fedfuse_ray.config.sources.systems import COLUMNS
from fedfuse_ray.report import (
    RunStore,
    figures,
    read_run,
    write_comparison,
    write_figure,
    write_report,
    write_run_report,
)
from fedfuse_ray.studies.related import page as related_page
from fedfuse_ray.studies.related.columns import Cell
from fedfuse_ray.studies.related.results import Measured, Related
from fedfuse_ray.studies.related.results import Row as System
from fedfuse_ray.studies.reproducing import page as reproduction_page
from fedfuse_ray.studies.reproducing.results import Reproduction, Spread
from fedfuse_ray.studies.reproducing.results import Row as Study
from fedfuse_ray.studies.sweeping.loading import validate_sweep
from fedfuse_ray.studies.sweeping.report import sweep_page
from fedfuse_ray.studies.sweeping.store import DONE, Row
from fedfuse_ray.studies.sweeping.summary import Selection
from tests.support.pages import report_sample
from tests.support.pages.audits import sample_audit
from tests.support.pages.rendered import EVIL, Read, charts_of, own_markup
from tests.support.pages.report_sample import evaluation, summary, write_sample


def evil_run(folder, monkeypatch):
    """Write a run whose domain, modality, classes, codec, preset and paradigm are `EVIL`."""
    monkeypatch.setattr(report_sample, "COUNTS", {EVIL: 3})
    domains = {EVIL: (EVIL, "<b>x</b>", "ct")}
    monkeypatch.setattr(report_sample, "DOMAINS", domains)
    write_sample(folder, rounds=3, private=True, domains=domains)
    store = RunStore(folder)
    tree = evaluation(domains=domains)
    tree["domains"][EVIL]["classes"][0] = EVIL
    store.write_evaluation(tree)
    told = summary(EVIL, rounds=3, private=True, domains=domains) | {"preset": EVIL}
    told["communication"]["codec"] = EVIL
    store.write_summary(told)
    (folder / "config.yaml").write_text(f"preset: '{EVIL}'\nseed: 0\n")
    return told


def run(folder, monkeypatch):
    evil_run(folder, monkeypatch)
    return write_run_report(folder).read_text()


def comparison(folder, monkeypatch):
    told = evil_run(folder / "trial", monkeypatch)
    shutil.copytree(folder / "trial", folder / "b")
    shutil.rmtree(folder / "trial")
    write_comparison(folder, {"b": told, EVIL: told | {"rounds": 0}})
    return write_report(folder).read_text()


def figure(folder, monkeypatch):
    evil_run(folder / "run", monkeypatch)
    found = read_run(folder / "run")
    drawn = figures.accuracy_by_institution(found.evaluation)
    write_figure(folder / "figure.html", EVIL, drawn, EVIL)
    return (folder / "figure.html").read_text()


def sweep(folder, monkeypatch):
    names = (f"model.{EVIL}", EVIL, "privacy.target_epsilon")
    space = {names[0]: [EVIL, "plain"], names[1]: [1, 2], names[2]: [1, 2]}
    asked = validate_sweep({"base": "tiny", "space": space})
    rows = [
        Row(i, f"{i}-{EVIL}", dict(zip(names, (one, two, three), strict=True)), DONE,
            accuracy=0.1 * i, domains={EVIL: 0.2}, epsilon=float(three), uplink_bytes=1e5 + i)
        for i, (one, two, three) in enumerate((o, w, t) for o in space[names[0]]
                                              for w in (1, 2) for t in (1, 2))
    ]  # fmt: skip
    return sweep_page(asked, rows, Selection(None, EVIL))


def measured(run):
    cells = {column: Cell(yes=True, evidence=EVIL) for column in COLUMNS}
    return Measured(
        cells=cells, accuracy={"overall": 0.5, EVIL: 0.4}, epsilon=1.0, uplink_bytes=1.0, rounds=2,
        rounds_to_95=1, seconds=1.0, weights={EVIL: {EVIL: 1.0}}, run=run,
    )  # fmt: skip


def related(folder, monkeypatch):
    # Kinds with levels that are no numbers would be a grid; these are a curve.
    names = [f"{kind}-{level}" for kind in (EVIL, "other") for level in ("1", "2")]
    variants = {name: measured(EVIL) for name in names}
    rows = (
        System(system="mcmahan", measured=measured(EVIL), variants=variants),
        System(system="kairouz", measured=None, variants={}, missing=EVIL),
    )
    environment = {"platform": EVIL}
    return related_page.page(
        Related(root=EVIL, command=EVIL, wall_seconds=1.0, environment=environment, rows=rows)
    )


def reproduction(folder, monkeypatch):
    spread = Spread(values=(0.5,))
    accuracy = dict.fromkeys(("overall", "medical", "materials", "environmental"), spread)

    def row(**at):
        return Study(
            at=at, seeds=(0,), accuracy=accuracy, epsilon=None, uplink_bytes=spread,
            fp32_uplink_bytes=1.0, rounds=spread, runs=(EVIL,),
        )  # fmt: skip

    studies = {
        "ablation": (row(change="as it is"), row(change=EVIL)),
        "skew": (row(skew="feature", paradigm="federated", level=EVIL),),
        "transfer": (row(target=EVIL, start="scratch"), row(target=EVIL, start="fusion")),
    }
    return reproduction_page.page(
        Reproduction(scale=EVIL, base=EVIL, command=EVIL, wall_seconds=1.0,
                     environment={"platform": EVIL}, studies=studies)
    )  # fmt: skip


def audit(folder, monkeypatch):
    return audit_page(sample_audit(EVIL, preset=EVIL))


PLAIN = {
    "run": 6, "comparison": 2, "figure": 1, "sweep": 6, "related": 5, "reproduction": 5, "audit": 6
}  # fmt: skip
"""How often the name is read in a page's text, at least."""


GROUPS = ("legendgroup", "offsetgroup")
"""Of a trace, and never drawn."""


def drawn_texts(tree):
    """Yield a chart's strings, groups' names aside."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from drawn_texts(value)
        elif isinstance(value, str) and key not in GROUPS:
            yield value


@pytest.mark.parametrize("kind", [run, comparison, figure, sweep, related, reproduction, audit])
def test_a_users_name_is_text_on_every_page(kind, tmp_path, monkeypatch):
    page = kind(tmp_path, monkeypatch)
    assert EVIL not in own_markup(page)
    read = Read(page)
    assert read.text.count(EVIL) >= PLAIN[kind.__name__]
    assert "b" not in read.tags or kind in (comparison, related)
    scripts = own_markup(page).count("<script")
    assert scripts == own_markup(page).count("</script>") == read.tags.count("script")
    shown = [text for text in drawn_texts(charts_of(page)) if "alert(1)" in text]
    assert shown
    for text in shown:
        assert "<script" not in text
        assert "<b>x" not in text
