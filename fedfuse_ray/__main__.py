"""`python -m fedfuse_ray`."""

import sys

from fedfuse_ray.cli import main

sys.exit(main())
