"""`python -m fedfuse_ray schema`: the JSON schema of configuration files."""

from __future__ import annotations

import sys

from fedfuse_ray.config import json_schema


def schema_command() -> None:
    """Print the JSON schema of config files, for editors."""
    sys.stdout.write(json_schema())
