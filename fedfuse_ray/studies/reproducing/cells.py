"""The experiments behind each of the paper's tables and figures.

A study is a list of cells; a cell is one federation, with the coordinates at which its result
stands in the study's table. Cells of two studies that are the same federation are run once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedfuse_ray.config import Experiment, load
from fedfuse_ray.config.settings.data import PhantomData
from fedfuse_ray.data.phantoms import FORWARD_MODELS
from fedfuse_ray.errors import InputError
from fedfuse_ray.studies.reproducing.scale import Scale

PARADIGMS = (
    "centralized",
    "isolated",
    "federated",
    "federated_dp",
    "fedfuse_nonprivate",
    "fedfuse",
)
END_TO_END = frozenset(PARADIGMS) - {"fedfuse"}

# Frozen encoders that were pre-trained in public, as `fedfuse` has: what a skew does is then seen
# without what training encoders on little data does besides.
_PUBLIC = (
    "model.encoder={kind: cnn, width: 16, weights: public, trainable: false}",
    "model.embedding_dim=16",
    "model.modality_dropout=0",
)
# The same arithmetic as the default's joint step, but each institution adds the whole noise itself.
_WITHOUT_SECURE_SUMS = (
    "privacy.mode=record-local",
    "training.local_epochs=1",
    "training.batch_size=1000000",
    "training.optimizer=sgd",
    "training.momentum=0",
    "training.learning_rate=1",
    "training.schedule=constant",
)
SCRATCH, FUSION, ENCODERS = "from scratch", "fusion", "fusion and encoders"


@dataclass(frozen=True)
class Cell:
    """One federation of a study.

    Attributes:
        study: The study's name.
        at: Coordinates in the study's table, without the seed.
        seed: The federation's seed.
        paradigm: What is trained.
        settings: Dotted settings over the base.
        domains: The only domains that take part; all where it is empty.
        after: The cell whose weights this one starts from.
        blocks: Which of them: block here to block there.
    """

    study: str
    at: Mapping[str, Any]
    seed: int
    paradigm: str
    settings: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    after: Cell | None = None
    blocks: Mapping[str, str] = field(default_factory=dict)


def experiment(cell: Cell, base: str) -> Experiment:
    """Return a cell's whole experiment, validated; without the weights that it starts from."""
    settings = [*cell.settings, f"seed={cell.seed}", "execution.executor=serial"]
    # Only the final score is shown.
    settings.append("execution.evaluate_every=1000000")
    if cell.domains:
        settings.append(f"restrict.domains=[{', '.join(cell.domains)}]")
    return load(base, settings, paradigm=cell.paradigm)


def table_3(scale: Scale) -> Iterator[Cell]:
    """Accuracy and bytes by paradigm (the paper's table 3)."""
    for paradigm in PARADIGMS:
        for seed in scale.slow_seeds if paradigm in END_TO_END else scale.seeds:
            yield Cell("table3", {"paradigm": paradigm}, seed, paradigm)


def privacy(scale: Scale) -> Iterator[Cell]:
    """Accuracy against epsilon (the paper's figure 2)."""
    for value in scale.epsilons:
        for seed in scale.seeds:
            settings = (f"privacy.target_epsilon={value}",)
            yield Cell("privacy", {"epsilon": value}, seed, "fedfuse", settings)


def skew(scale: Scale) -> Iterator[Cell]:
    """Accuracy as institutions' data drift apart (the paper's figure 1)."""
    methods = (("federated", _PUBLIC), ("fedfuse", ()))
    for name, levels in scale.skews.items():
        for level in levels:
            for paradigm, recipe in methods:
                for seed in scale.seeds:
                    at = {"skew": name.rpartition(".")[2], "level": level, "paradigm": paradigm}
                    value = "null" if level is None else level
                    settings = (*recipe, f"{name}={value}")
                    yield Cell("skew", at, seed, paradigm, settings)


def compression(scale: Scale) -> Iterator[Cell]:
    """Bytes and accuracy with and without compression."""
    plain = ("compression.codec=fp32", "compression.downlink.codec=fp32")
    for paradigm in ("fedfuse_nonprivate", "fedfuse"):
        seeds = scale.slow_seeds if paradigm in END_TO_END else scale.seeds
        for name, settings in (("fp32", plain), ("compressed", ())):
            for seed in seeds:
                at = {"paradigm": paradigm, "codec": name}
                yield Cell("compression", at, seed, paradigm, settings)


def transfer(scale: Scale) -> Iterator[Cell]:
    """Few specimens of one domain, from scratch or after training on the two others."""
    whole = load(scale.base)
    if not isinstance(whole.data, PhantomData):
        raise InputError("base", scale.base, "transfer needs a preset with generated domains")
    domains = {name: d.modalities for name, d in whole.data.domains.items()}
    split = ", ".join(f"{name}: {value}" for name, value in scale.few.items())
    few = (f"data.split={{{split}}}",)
    for target in domains:
        others = tuple(name for name in domains if name != target)
        donors = _donors(domains[target], [domains[name] for name in others])
        starts = {SCRATCH: {}, FUSION: {"fusion": "fusion"}}
        starts[ENCODERS] = {"fusion": "fusion", **donors}
        for seed in scale.seeds:
            rounds = (f"training.rounds={scale.pretraining_rounds}",)
            at = {"target": target, "start": "the other domains"}
            before = Cell("pretraining", at, seed, "fedfuse_nonprivate", rounds, others)
            for start, blocks in starts.items():
                yield Cell(
                    "transfer",
                    {"target": target, "start": start},
                    seed,
                    "fedfuse_nonprivate",
                    few,
                    (target,),
                    before if blocks else None,
                    blocks,
                )


def ablation(scale: Scale) -> Iterator[Cell]:
    """The private federation, with one part changed at a time."""
    kinds = ["mean", "concat", "late", *(["early"] if scale.early_fusion else [])]
    changes: dict[str, tuple[str, ...]] = {"as it is": ()}
    changes |= {f"fusion: {kind}": (f"model.fusion={kind}",) for kind in kinds}
    changes["modality dropout 0.3"] = ("model.modality_dropout=0.3",)
    changes["without secure aggregation"] = _WITHOUT_SECURE_SUMS
    changes["without public pre-training"] = ("model.encoder.weights=random",)
    for change, settings in changes.items():
        for seed in scale.seeds:
            yield Cell("ablation", {"change": change}, seed, "fedfuse", settings)


STUDIES: Mapping[str, Callable[[Scale], Iterator[Cell]]] = {
    "table3": table_3,
    "skew": skew,
    "privacy": privacy,
    "compression": compression,
    "transfer": transfer,
    "ablation": ablation,
}


def cells_of(scale: Scale, names: tuple[str, ...]) -> list[Cell]:
    """Return the cells of the named studies, each after the one whose weights it takes."""
    cells: list[Cell] = []
    for name in names:
        for cell in STUDIES[name](scale):
            if cell.after is not None and cell.after not in cells:
                cells.append(cell.after)
            cells.append(cell)
    return cells


def _donors(target: tuple[str, ...], others: list[tuple[str, ...]]) -> dict[str, str]:
    """Return which encoder starts from which: images from images, the other domains in turn."""
    images = [m for m in target if _is_image(m)]
    turns = [m for pair in zip(*others, strict=False) for m in pair if _is_image(m)]
    return {f"encoder/{a}": f"encoder/{b}" for a, b in zip(images, turns, strict=False)}


def _is_image(modality: str) -> bool:
    return len(FORWARD_MODELS[modality].shape(32, 256)) == 3
