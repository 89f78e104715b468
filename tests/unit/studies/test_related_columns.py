"""The table's cells follow from what a run left behind; each has controls that must say no."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from fedfuse_ray.config import load
from fedfuse_ray.config.sources.systems import COLUMNS
from fedfuse_ray.report.store import read_run
from fedfuse_ray.runs.running import run
from fedfuse_ray.studies.related.columns import DEFINITIONS, derive

SMALL = ["execution.executor=serial", "training.rounds=1", "training.max_epochs=2"]


def ran(folder, paradigm, *settings):
    run(load("tiny", [*SMALL, *settings], paradigm=paradigm), folder)
    return read_run(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every column is yes: fusion over two domains, private, under secure aggregation."""
    return ran(tmp_path_factory.mktemp("whole"), "fedfuse")


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """One model for each modality, federated."""
    return ran(tmp_path_factory.mktemp("apart"), "federated")


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    """Fusion over specimens in one place, of one domain."""
    folder = tmp_path_factory.mktemp("pooled")
    return ran(folder, "centralized", "restrict.domains=[medical]")


def answers(found):
    return {column: found[column].yes for column in COLUMNS}


def with_rows(seen, keep=None, **values):
    """Return a run whose institutions' table holds only some rows, or other values in them."""
    table = seen.institutions if keep is None else seen.institutions.filter(keep)
    for name, value in values.items():
        column = pa.repeat(pa.scalar(value, table.schema.field(name).type), table.num_rows)
        table = table.set_column(table.column_names.index(name), name, column)
    return replace(seen, institutions=table)


def with_summary(seen, **values):
    return replace(seen, summary=seen.summary.model_copy(update=values))


def test_whatever_a_federation_is_its_folder_shows(whole, apart, pooled):
    assert answers(derive(whole)) == dict.fromkeys(COLUMNS, True)
    assert answers(derive(apart)) == {
        "fusion": False,
        "federated": True,
        "privacy": False,
        "domains": True,
        "heterogeneity": False,
    }
    assert answers(derive(pooled)) == dict.fromkeys(COLUMNS, False) | {"fusion": True}
    assert list(DEFINITIONS) == list(COLUMNS)


def test_the_evidence_holds_the_figures(whole, apart, pooled):
    found = derive(whole)
    assert found["privacy"].evidence.startswith(
        f"epsilon {whole.summary.privacy.epsilon:.3f} at delta 1e-05 from {len(whole.ledger)} "
    )
    assert found["federated"].evidence.startswith("3 institutions sent")
    assert "trained fusion together" in found["heterogeneity"].evidence
    assert derive(apart)["heterogeneity"].evidence == (
        "every shared block belongs to a single modality"
    )
    assert derive(pooled)["federated"].evidence == "the specimens lay in one place: medical"


@pytest.mark.parametrize("ignored", [0, 1])
def test_no_fusion_where_hiding_a_modality_changes_nothing(whole, ignored):
    domains = {}
    for name, domain in whole.evaluation.domains.items():
        widest = domain.widest
        rest = (widest.modalities[1 - ignored],)
        views = [
            v.model_copy(update={"confusion": widest.confusion}) if v.modalities == rest else v
            for v in domain.views
        ]
        domains[name] = domain.model_copy(update={"views": views})
    deaf = replace(whole, evaluation=whole.evaluation.model_copy(update={"domains": domains}))
    assert not derive(deaf)["fusion"].yes


@pytest.mark.parametrize("status", ["late", "failed"])
def test_not_federated_where_no_update_was_summed(whole, status):
    found = derive(with_rows(whole, status=status))
    assert not found["federated"].yes
    assert not found["heterogeneity"].yes
    assert not derive(with_rows(whole, uplink_bytes=0))["federated"].yes


def test_not_federated_where_one_sent_or_each_into_blocks_of_its_own(whole, apart):
    name = pc.field("institution")
    assert not derive(with_rows(whole, name == "med-01"))["federated"].yes
    # One owns CT and MRI, the other spectra and micrographs: without fusion they share nothing.
    strangers = with_rows(apart, name.isin(["med-01", "mat-01"]))
    assert not derive(strangers)["federated"].yes
    assert derive(with_rows(apart, name.isin(["med-01", "med-02"])))["federated"].yes


def test_not_federated_where_specimens_were_pooled(whole):
    config = whole.config.replace("paradigm: fedfuse", "paradigm: centralized")
    config = config.replace("mode: record-distributed", "mode: none")
    assert not derive(replace(whole, config=config))["federated"].yes


def test_not_private_without_releases_or_with_an_endless_epsilon(whole):
    assert not derive(replace(whole, ledger=()))["privacy"].yes
    for epsilon in (None, float("inf")):
        privacy = whole.summary.privacy.model_copy(update={"epsilon": epsilon})
        assert not derive(with_summary(whole, privacy=privacy))["privacy"].yes


def test_one_domain_is_no_multi_domain_validation(whole):
    accuracy = {n: v for n, v in whole.summary.accuracy.items() if n != "materials"}
    assert not derive(with_summary(whole, accuracy=accuracy))["domains"].yes


def test_no_heterogeneity_where_all_own_the_same(whole):
    alike = with_rows(whole, pc.field("domain") == "medical", modalities="ct")
    found = derive(alike)
    assert found["federated"].yes
    assert not found["heterogeneity"].yes
