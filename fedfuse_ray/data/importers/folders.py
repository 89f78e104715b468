"""Trees of folders, `<domain>/<modality>/<label>/<image>`, as many collections are shared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedfuse_ray.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".dcm"}


@dataclass(frozen=True)
class FolderSpecimen:
    """One specimen: files of one domain, label and name without suffix.

    Attributes:
        id: `<label>/<name>`.
        label: Its class.
        files: The file of each modality.
    """

    id: str
    label: str
    files: dict[str, Path]


def find(root: Path) -> dict[str, list[FolderSpecimen]]:
    """Return each domain's specimens, sorted; hidden files and other suffixes are passed over.

    Raises:
        InputError: No image at that depth, a link out of the folder, or two files of one name.
    """
    domains: dict[str, dict[str, FolderSpecimen]] = {}
    inside = root.resolve()
    for file in sorted(root.glob("*/*/*/*")):
        if file.suffix.lower() not in SUFFIXES or file.name.startswith(".") or not file.is_file():
            continue
        if not file.resolve().is_relative_to(inside):
            raise InputError("source", file, f"is a link out of {root}; copy the file into it")
        domain, modality, label = file.relative_to(root).parts[:3]
        name = f"{label}/{file.stem}"
        specimens = domains.setdefault(domain, {})
        specimen = specimens.setdefault(name, FolderSpecimen(name, label, {}))
        if modality in specimen.files:
            remedy = f"has the same name as {specimen.files[modality].name}; rename one of them"
            raise InputError("source", file, remedy)
        specimen.files[modality] = file
    if not domains:
        remedy = f"holds no DOMAIN/MODALITY/LABEL/IMAGE with {', '.join(sorted(SUFFIXES))}"
        raise InputError("source", root, remedy)
    return {domain: list(specimens.values()) for domain, specimens in domains.items()}
