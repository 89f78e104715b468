"""How updates are encoded on their way up, and the model on its way down."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fedfuse_ray.config.settings.base import Config

CodecName = Literal[
    "fp32", "fp16", "modint", "subspace", "countsketch", "rot1bit", "topk", "powersgd"
]
Feedback = Literal["auto", "none", "ef14", "ef21"]

LINEAR_CODECS = frozenset({"fp32", "modint", "subspace", "countsketch"})
"""Codecs whose sum can be taken under masks."""

FEEDBACK_CODECS = frozenset({"topk", "powersgd", "rot1bit"})
"""Codecs that lose much of a single update, and may owe the rest to the next round."""

ADAPTIVE_CODECS = frozenset({"modint", "subspace", "countsketch", "topk"})
"""Codecs of which the adaptive policy has something to choose."""


class PolicyConfig(Config):
    """Who chooses bits and fractions: the config once, or an adaptive policy block by block.

    Attributes:
        kind: `fixed` takes `bits` and `fraction` as they are; `adaptive` moves them with the sums
            that were released before, so that it costs no privacy; `auto` is adaptive where an
            aim is given, and under secure aggregation where `bits` is null; fixed elsewhere.
        error_target: Squared error of a decoded block over its squared norm that the adaptive
            policy aims at; 0.001 where neither aim is given.
        byte_budget: Bytes of payload a round, over all institutions, that the adaptive policy
            spends where they lower the error most.
    """

    kind: Literal["auto", "fixed", "adaptive"] = "auto"
    error_target: float | None = Field(None, gt=0.0, lt=1.0)
    byte_budget: int | None = Field(None, ge=1)

    @property
    def asked(self) -> bool:
        """Whether the adaptive policy is asked for by name, or by an aim."""
        aims = (self.error_target, self.byte_budget)
        return self.kind == "adaptive" or any(aim is not None for aim in aims)

    @model_validator(mode="after")
    def _one_aim(self) -> PolicyConfig:
        aims = [aim for aim in (self.error_target, self.byte_budget) if aim is not None]
        if len(aims) == 2:
            raise ValueError("byte_budget: the policy has one aim; drop it or error_target")
        if self.kind == "fixed" and aims:
            raise ValueError("kind: 'fixed' aims at nothing; set it to adaptive")
        return self


class DownlinkConfig(Config):
    """How the model is broadcast.

    Attributes:
        codec: `fp32` sends the weights; any other sends what changed since the last broadcast,
            encoded, against a copy that the server keeps of what institutions hold, so that no
            error adds up. An institution that missed a broadcast is sent whole weights.
        bits: Bits an entry, for `modint`.
        fraction: Kept fraction, for `topk` and `subspace`.
    """

    codec: Literal["fp32", "fp16", "modint", "subspace", "rot1bit", "topk", "powersgd"] = "fp32"
    bits: int = Field(8, ge=2, le=16)
    fraction: float = Field(0.1, gt=0.0, le=1.0)


class CompressionConfig(Config):
    """Compression of updates.

    Attributes:
        codec: `fp32` and `fp16` floats; `modint` (randomly rotated integers modulo 2^bits);
            `subspace` and `countsketch` (seeded linear sketches); `rot1bit` (a rotated sign an
            entry); `topk` (largest entries); `powersgd` (low rank). Under secure aggregation
            only `fp32`, `modint`, `subspace` and `countsketch`, whose sums can be masked.
        bits: Bits an entry of `modint`, of a kept value of `topk`, and under secure aggregation of
            a sketch's coordinate. Null takes 8, and under secure aggregation as many as no sum
            can overflow.
        fraction: Entries that `topk` keeps, signs that `rot1bit` sends, and the size of a
            `subspace` or `countsketch`, relative to the block. Null takes 1 for `rot1bit` and 0.1
            elsewhere.
        smallest: Blocks are never sketched to fewer coordinates than this.
        rank: Of `powersgd`.
        feedback: Error feedback: `ef14` adds what was lost to the next update (Seide et al.,
            2014), `ef21` sends differences to what the server already has (Richtarik et al.,
            2021, arXiv 2106.05203). Only where nothing is private; `auto` is `ef14` there for
            `topk`, `powersgd` and `rot1bit`, and none elsewhere.
        rounding_step: Under secure aggregation, the grid of `modint`, `subspace` and
            `countsketch` in standard deviations of one institution's noise share. Where the proof
            of docs/proofs.md needs a finer grid, it is finer.
        encryption: `ckks`: the server adds ciphertexts that it can't read, and one institution
            decrypts the sums (TenSEAL, the extra `he`); updates are rounded to multiples of 2^-20.
        policy: Who chooses bits and fractions.
        downlink: The broadcast.
    """

    codec: CodecName = "fp32"
    bits: int | None = Field(None, ge=2, le=32)
    fraction: float | None = Field(None, gt=0.0, le=1.0)
    smallest: int = Field(64, ge=1)
    rank: int = Field(2, ge=1, le=64)
    feedback: Feedback = "auto"
    rounding_step: float = Field(1.0, gt=0.0, le=1.0)
    encryption: Literal["none", "ckks"] = "none"
    policy: PolicyConfig = PolicyConfig()
    downlink: DownlinkConfig = DownlinkConfig()

    @model_validator(mode="after")
    def _settings_agree(self) -> CompressionConfig:
        if self.feedback in ("ef14", "ef21") and self.codec not in FEEDBACK_CODECS:
            raise ValueError(
                f"feedback: {self.feedback!r} with codec {self.codec!r}, which owes nothing to the "
                f"next round; set it to none, or use {', '.join(sorted(FEEDBACK_CODECS))}"
            )
        if self.policy.asked and self.codec not in ADAPTIVE_CODECS:
            raise ValueError(
                f"policy.kind: 'adaptive' has nothing to choose for codec {self.codec!r}; use "
                f"{', '.join(sorted(ADAPTIVE_CODECS))}, or drop the policy's aim and set it to auto"
            )
        return self
