"""A plausible run folder, made without training."""

from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np

from fedfuse_ray.report import InstitutionRow, RoundRow, RunStore

DOMAINS = {
    "medical": ("ct", "mri", "histopathology"),
    "materials": ("electron_microscopy", "spectroscopy", "xrd"),
    "environmental": ("satellite", "aerial", "ground"),
}
COUNTS = {"medical": 5, "materials": 6, "environmental": 4}
DEADLINE = 6.25
CONFIG = "preset: demo\nseed: 0\n"
DEADLINE_CONFIG = f"network: {{aggregation: {{kind: deadline, deadline_seconds: {DEADLINE}}}}}\n"


def institutions():
    """Name to (domain, modalities) of 15 institutions that own one to three modalities."""
    listed = {}
    for domain, count in COUNTS.items():
        modalities = DOMAINS[domain]
        owned = [modalities, modalities[:2], modalities[1:], modalities[:1], modalities, modalities]
        for index in range(count):
            listed[f"{domain[:3]}-{index + 1:02d}"] = (domain, owned[index])
    return listed


def summary(paradigm="fedfuse_nonprivate", rounds=40, level=0.9, private=False, domains=DOMAINS):
    scores = {"overall": level} | {d: level + 0.02 * (1 - i) for i, d in enumerate(domains)}
    owners = institutions()
    return {
        "paradigm": paradigm,
        "preset": "demo",
        "seed": 0,
        "executor": "ray",
        "rounds": rounds,
        "accuracy": scores,
        "accuracy_by_modality": {
            m: level - 0.3 - 0.04 * i for d in domains for i, m in enumerate(DOMAINS[d])
        },
        "macro_f1": {name: value - 0.013 for name, value in scores.items()},
        "privacy": {
            "mode": "record-distributed" if private else "none",
            "epsilon": 1.0 if private else None,
            "delta": 1e-5 if private else None,
            "epsilon_by_institution": {n: 0.9 for n in owners} if private else {},
            "noise_multiplier": 5.79 if private else None,
            "clip_norm": 0.5 if private else None,
            "sampling_rate": 0.1 if private else None,
            "steps": rounds if private else 0,
            "unit": "record" if private else None,
            "adversary": "honest-but-curious server" if private else None,
            "total_epsilon": 1.5 if private else None,
            "total_runs": 2 if private else 0,
            "unprotected_runs": 0,
        },
        "communication": {
            "uplink_bytes_per_round": 1_425_000 if rounds else 0,
            "downlink_bytes_per_round": 5_700_000 if rounds else 0,
            "uplink_bytes_total": 1_425_000 * rounds,
            "fp32_uplink_bytes_per_round": 5_700_000 if rounds else 0,
            "codec": "modint" if private else "fp32",
            "payload_bytes_per_round": 1_320_000 if private else 0,
        },
        "time": {
            "wall_seconds": 61.2,
            "startup_seconds": 6.3,
            "seconds_per_round": 1.31,
            "simulated_seconds": 250.0 if private else 0.0,
        },
        "weights_sha256": "ab" * 32,
    }


def evaluation(attention=True, domains=DOMAINS):
    generator = np.random.default_rng(0)
    tree = {"domains": {}, "institutions": {}}
    for domain in domains:
        modalities, views = DOMAINS[domain], []
        for size in (1, 2, 3):
            for view in combinations(modalities, size):
                right = 0.4 + 0.17 * size
                matrix = generator.multinomial(40, [0.04] * 6 + [0.76], size=6)[:, :6]
                matrix[np.arange(6), np.arange(6)] += np.int64(200 * right)
                weights = generator.dirichlet([3.0] * size)
                given = dict(zip(view, map(float, weights), strict=True)) if attention else None
                views.append(
                    {
                        "modalities": list(view),
                        "accuracy": right,
                        "macro_f1": right - 0.01,
                        "confusion": matrix.tolist(),
                        "attention": given,
                    }
                )
        classes = [f"class {index}" for index in range(6)]
        tree["domains"][domain] = {"classes": classes, "specimens": 1307, "views": views}
    for name, (domain, owned) in institutions().items():
        if domain in domains:
            tree["institutions"][name] = {
                "domain": domain,
                "modalities": list(owned),
                "accuracy": 0.4 + 0.17 * len(owned),
            }
    return tree


def round_row(number, private=False, domains=DOMAINS):
    grown = 1 - math.exp(-number / 8)
    return RoundRow(
        round=number,
        loss=1.8 * math.exp(-number / 10) + 0.1,
        seconds=1.3,
        train_seconds=1.0,
        aggregate_seconds=0.1,
        evaluate_seconds=0.15,
        simulated_seconds=DEADLINE if private else 0.0,
        uplink_bytes=1_425_000 if private else 5_700_000,
        downlink_bytes=5_700_000,
        participants=15,
        dropouts=0,
        epsilon=0.15 * math.sqrt(number) if private else None,
        accuracy=0.17 + 0.73 * grown,
        domain_accuracy={d: 0.17 + (0.75 - 0.03 * i) * grown for i, d in enumerate(domains)},
        macro_f1=0.15 + 0.73 * grown,
        validation_accuracy=0.17 + 0.7 * grown,
        simulated_start=DEADLINE * (number - 1) if private else 0.0,
    )


def simulated(number, index):
    """What a simulated network adds to a row: three links in turn, some late, absent or lost."""
    status = "sent"
    if index == 7 and number % 5 == 2:
        return {"status": "absent", "uplink_bytes": 0, "downlink_bytes": 0}
    if index == 3 and number % 7 == 4:
        status = "failed"
    far = index % 3
    late = index == 14 and number % 3 == 0
    bits = {"encoder/ct": 6, "fusion": max(3.0, 8 - 0.5 * number), "head/medical": 8}
    return {
        "status": "late" if late else status,
        "started": DEADLINE * (number - 1),
        "download_seconds": 0.2 + 0.45 * far,
        "compute_seconds": 0.5 + 0.15 * index + (1.5 if late else 0.0),
        "upload_seconds": 0.3 + 0.9 * far,
        "payload_bytes": 88_000,
        "compression": json.dumps(bits, separators=(",", ":")),
    }


def institution_rows(number, private=False, domains=DOMAINS):
    return [
        InstitutionRow(
            round=number,
            institution=name,
            domain=domain,
            modalities=owned,
            specimens=300 + 10 * index,
            steps=10,
            loss=0.5,
            train_seconds=0.1,
            validation_accuracy=None,
            epsilon=0.13 * math.sqrt(number) if private else None,
            **{"uplink_bytes": 95_000, "downlink_bytes": 380_000}
            | (simulated(number, index) if private else {}),
        )
        for index, (name, (domain, owned)) in enumerate(institutions().items())
        if domain in domains
    ]


def write_sample(folder, rounds=40, private=False, domains=DOMAINS, attention=True, **told):
    """Write a finished run's folder and return it."""
    store = RunStore(folder)
    config = CONFIG + (DEADLINE_CONFIG if private else "")
    store.start(config, {"versions": {"python": "3.11.7"}, "git": None})
    for number in range(1, rounds + 1):
        rows = institution_rows(number, private, domains)
        store.append_round(round_row(number, private, domains), rows)
    store.write_evaluation(evaluation(attention, domains))
    store.write_summary(summary(rounds=rounds, private=private, domains=domains, **told))
    return folder
