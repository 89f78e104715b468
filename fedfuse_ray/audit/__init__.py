"""Attacks on what a federation releases, and a test of the privacy that its ledger claims."""

from fedfuse_ray.audit.attacks.bound import Guesses, epsilon_lower_bound, p_value
from fedfuse_ray.audit.attacks.canary.verdicts import CanaryAudit
from fedfuse_ray.audit.attacks.canary_audit import audit_canaries
from fedfuse_ray.audit.findings import Audit
from fedfuse_ray.audit.page import write_audit
from fedfuse_ray.audit.run import ATTACKS, audit
from fedfuse_ray.audit.subject import Subject, of_experiment, of_run

__all__ = [
    "ATTACKS",
    "Audit",
    "CanaryAudit",
    "Guesses",
    "Subject",
    "audit",
    "audit_canaries",
    "epsilon_lower_bound",
    "of_experiment",
    "of_run",
    "p_value",
    "write_audit",
]
