"""Trees of folders, `<domain>/<modality>/<label>/<image>`, as many collections are shared.

Where it is known whose an image is, there is one more level:
`<domain>/<modality>/<label>/<patient>/<image>`. A patient may have specimens of several labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedfuse_ray.data.importers.checks import check_name
from fedfuse_ray.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".dcm"}

_SYSTEM = {"__macosx", "$recycle.bin", "system volume information", "lost+found", "@eadir"}
"""Folders, in small letters, that operating systems and disk stations leave behind."""

Tell = Callable[[str], None]
"""Tells the user a line."""


@dataclass(frozen=True)
class FolderSpecimen:
    """One specimen, `<label>/<name>` or `<label>/<patient>/<name>`: one file of each modality.

    `patient` is empty where nobody knows.
    """

    id: str
    label: str
    files: dict[str, Path]
    patient: str = ""


def find(root: Path, tell: Tell) -> dict[str, list[FolderSpecimen]]:
    """Return each domain's specimens, sorted.

    Hidden files, those of the operating system, and other suffixes are passed over, and told.

    Raises:
        InputError: No image at that depth, a link out of the folder, a name that is not text or
            can't name a domain or modality, two files of one name, or patients of some images only,
            or in several domains.
    """
    domains: dict[str, dict[str, FolderSpecimen]] = {}
    inside = root.resolve()
    first: Path | None = None
    for file in _images(root, tell):
        if not file.resolve().is_relative_to(inside):
            raise InputError("source", file, f"is a link out of {root}; copy the file into it")
        first = first or file
        domain, modality, label, *of_patient = file.relative_to(root).parts[:-1]
        for value in (domain, modality):
            check_name(str(file), value)
        if len(file.parts) != len(first.parts):
            remedy = f"has another depth than {first}; give all images a patient's folder, or none"
            raise InputError("source", file, remedy)
        name = "/".join((label, *of_patient, file.stem))
        specimens = domains.setdefault(domain, {})
        made = FolderSpecimen(name, label, {}, "".join(of_patient))
        specimen = specimens.setdefault(name, made)
        if modality in specimen.files:
            remedy = f"has the same name as {specimen.files[modality].name}; rename one of them"
            raise InputError("source", file, remedy)
        specimen.files[modality] = file
    if not domains:
        remedy = (
            f"holds no DOMAIN/MODALITY/LABEL[/PATIENT]/IMAGE with {', '.join(sorted(SUFFIXES))}"
        )
        raise InputError("source", root, remedy)
    _check_patients(root, domains)
    return {domain: list(specimens.values()) for domain, specimens in domains.items()}


def _images(root: Path, tell: Tell) -> Iterator[Path]:
    """Yield the images at either depth, in order; what is passed over is counted, and told."""
    hidden: dict[str, int] = {}
    others: dict[str, int] = {}
    for file in sorted([*root.glob("*/*/*/*"), *root.glob("*/*/*/*/*")]):
        if not file.is_file():
            continue
        parts = file.relative_to(root).parts
        strange = next((p for p in parts if p.startswith(".") or p.lower() in _SYSTEM), None)
        if strange is not None:
            hidden[strange] = hidden.get(strange, 0) + 1
        elif file.suffix.lower() not in SUFFIXES:
            others[file.suffix.lower()] = others.get(file.suffix.lower(), 0) + 1
        else:
            _check_text(file)
            yield file
    for what, counts in (("hidden and system files", hidden), ("files of other kinds", others)):
        if counts:
            names = ", ".join(
                f"{count} {name or 'without suffix'}" for name, count in counts.items()
            )
            tell(f"Passed over {sum(counts.values())} {what}: {names}")


def _check_text(file: Path) -> None:
    try:
        str(file).encode()
    except UnicodeEncodeError:
        remedy = "the name is not UTF-8, as if it came from an old archive; rename it"
        raise InputError("source", file, remedy) from None


def _check_patients(root: Path, domains: dict[str, dict[str, FolderSpecimen]]) -> None:
    """Refuse an id in two domains: it is one patient, but each domain draws its own splits."""
    home: dict[str, str] = {}
    for domain, specimens in domains.items():
        for specimen in specimens.values():
            other = home.setdefault(specimen.patient, domain) if specimen.patient else domain
            if other != domain:
                remedy = (
                    f"patient {specimen.patient} is in {other} and in {domain}, and ids count in "
                    "all domains; rename one of the folders"
                )
                raise InputError("source", root, remedy)
