"""Importers: every manifest that is refused, and the line that says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedfuse_ray.data import importers
from fedfuse_ray.errors import InputError
from tests.support.importer_files import (
    COLUMNS,
    Rows,
    config,
    federation,
    row,
    save,
)


def change(index: int, **values: str) -> Callable[[Rows], Rows]:
    def apply(rows: Rows) -> Rows:
        rows[index].update(values)
        return rows

    return apply


WRONG: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "empty": (lambda rows: [], r"data\.path: .*manifest is empty"),
    "no label": (change(3, label=" "), "line 5, label: '': is empty"),
    "no institution": (change(0, institution=""), "line 2, institution: '': is empty"),
    "odd name": (change(0, institution="../x"), r"line 2, institution: '\.\./x': a name is"),
    "unknown split": (change(0, split="dev"), "line 2, split: 'dev': is no split"),
    "two domains": (
        lambda rows: [*rows, row("z", "a", "sick", "train", domain="other")],
        "line 17, institution: 'a': is in domain other here and in med at line 2",
    ),
    "leak": (change(1, split="test"), "line 3, specimen_id: 'a0': .*a leak"),
    "leak across sites": (
        change(8, specimen_id="a0", label="sick", split="val"),
        "line 10, specimen_id: 'a0': .*a leak",
    ),
    "two labels": (change(1, label="well"), "line 3, label: 'well': specimen a0 has label sick"),
    "duplicate": (
        lambda rows: [*rows, dict(rows[0])],
        "line 17, modality: 'ct': specimen a0 has its ct image at line 2 already",
    ),
    "empty institution": (
        lambda rows: [*rows, row("c0", "c", "sick", "val")],
        "line 17, institution: 'c': is an empty institution",
    ),
    "no test": (
        lambda rows: [r for r in rows if r["split"] != "test"],
        r"m\.csv, domain: 'med': the domain has no test rows",
    ),
    "no train": (
        lambda rows: [*rows, row("z", "", "sick", "test", domain="other")],
        r"m\.csv, domain: 'other': the domain has no train rows",
    ),
    "single class": (
        lambda rows: [r for r in rows if r["label"] == "sick"],
        r"m\.csv, domain: 'med': .*single class",
    ),
    "label outside the set": (
        lambda rows: [*rows, row("t2", "", "ill", "test")],
        "line 17, label: 'ill': is outside med's set of labels.*: sick, well",
    ),
    "modality nobody owns": (
        lambda rows: [*rows, row("t2", "", "sick", "test", "pet")],
        "line 17, modality: 'pet': no institution of med owns it",
    ),
    "modality not owned": (
        lambda rows: [*rows, row("b9", "b", "sick", "val", "mri")],
        "line 17, modality: 'mri': b has no train rows of it",
    ),
    "file in two splits": (
        change(12, path="./ct/a0.png"),
        r"line 14, path: '\./ct/a0\.png': the file serves test here and train at line 2",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_rows(tmp_path: Path, case: str) -> None:
    edit, message = WRONG[case]
    path = save(tmp_path, edit(federation()), images=False)
    with pytest.raises(InputError, match=message) as error:
        importers.read(config(path), seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column specimen_id is missing"),
        ("specimen_id,institution,domain,modality,label,path\n", "column split is missing"),
        (",".join((*COLUMNS, "label")) + "\n", "column label stands twice"),
        (",".join(COLUMNS) + "\na,b\n", r"line 2: 'a,b': the line has 2 fields, the header 7"),
        (",".join(COLUMNS) + '\n"a\n', "is not comma-separated UTF-8 text"),
        (",".join(COLUMNS) + "\n\xff", "is not comma-separated UTF-8 text"),
    ],
)
def test_wrong_csv(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        importers.check(config(path))


def test_wrong_files(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "x.npz").write_text("x")
    pq.write_table(pa.table({"label": [["a"]]}), tmp_path / "y.parquet")
    nested = [{**line, "label": [line["label"]], "path": "x"} for line in federation()]
    pq.write_table(pa.Table.from_pylist(nested), tmp_path / "z.parquet")
    for name, message in (
        ("x.parquet", "not a readable Parquet"),
        ("y.parquet", "column specimen_id is missing"),
        ("z.parquet", "z.parquet, label: .*text or numbers"),
        ("x.txt", r"ends in \.csv"),
        ("x.npz", "data import"),
        (".", "data import"),
        ("none.csv", "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            importers.check(config(tmp_path / name))
