"""What runs on the tests' Ray instance."""

from __future__ import annotations

from typing import Any

import ray


def actors() -> dict[str, Any]:
    """Return the live actors by name, wherever they were started."""
    named = ray.util.list_named_actors(all_namespaces=True)
    return {a["name"]: ray.get_actor(a["name"], namespace=a["namespace"]) for a in named}
