"""What a run, a comparison, a sweep or a Ray job looks like while it goes on."""

from fedfuse_ray.studies.watching.folders import look_at_folder
from fedfuse_ray.studies.watching.jobs import Jobs, look_at_job
from fedfuse_ray.studies.watching.look import Look, watch

__all__ = ["Jobs", "Look", "look_at_folder", "look_at_job", "watch"]
