"""Trees of folders, `<domain>/<modality>/<label>/<image>`, as many collections are shared.

Where it is known whose an image is, there is one more level:
`<domain>/<modality>/<label>/<patient>/<image>`. A patient may have specimens of several labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedfuse_ray.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".dcm"}


@dataclass(frozen=True)
class FolderSpecimen:
    """One specimen, `<label>/<name>` or `<label>/<patient>/<name>`: one file of each modality.

    `patient` is empty where nobody knows.
    """

    id: str
    label: str
    files: dict[str, Path]
    patient: str = ""


def find(root: Path) -> dict[str, list[FolderSpecimen]]:
    """Return each domain's specimens, sorted; hidden files and other suffixes are passed over.

    Raises:
        InputError: No image at that depth, a link out of the folder, two files of one name, or
            patients of some images only, or in several domains.
    """
    domains: dict[str, dict[str, FolderSpecimen]] = {}
    inside = root.resolve()
    first: Path | None = None
    for file in sorted([*root.glob("*/*/*/*"), *root.glob("*/*/*/*/*")]):
        if file.suffix.lower() not in SUFFIXES or file.name.startswith(".") or not file.is_file():
            continue
        if not file.resolve().is_relative_to(inside):
            raise InputError("source", file, f"is a link out of {root}; copy the file into it")
        first = first or file
        domain, modality, label, *of_patient = file.relative_to(root).parts[:-1]
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
