"""A sweep's page: what each setting costs and brings, in charts and one sortable table."""

from fedfuse_ray.studies.sweeping.report.page import sweep_page, write_sweep_report

__all__ = ["sweep_page", "write_sweep_report"]
