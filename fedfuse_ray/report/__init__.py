"""Results: a run's folder, its figures, one HTML page, and tables for the terminal."""

from fedfuse_ray.report.comparison import write_comparison_report, write_report
from fedfuse_ray.report.console import comparison_table, run_table
from fedfuse_ray.report.provenance import environment
from fedfuse_ray.report.rows import InstitutionRow, RoundRow
from fedfuse_ray.report.run_page import write_figure, write_run_report
from fedfuse_ray.report.schema import (
    DomainEvaluation,
    Evaluation,
    InstitutionEvaluation,
    Summary,
    ViewEvaluation,
)
from fedfuse_ray.report.store import (
    RunResult,
    RunStore,
    read_comparison,
    read_run,
    write_comparison,
)

__all__ = [
    "DomainEvaluation",
    "Evaluation",
    "InstitutionEvaluation",
    "InstitutionRow",
    "RoundRow",
    "RunResult",
    "RunStore",
    "Summary",
    "ViewEvaluation",
    "comparison_table",
    "environment",
    "read_comparison",
    "read_run",
    "run_table",
    "write_comparison",
    "write_comparison_report",
    "write_figure",
    "write_report",
    "write_run_report",
]
