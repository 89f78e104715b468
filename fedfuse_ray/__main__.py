"""`python -m fedfuse_ray`."""

import signal
import sys

if __name__ == "__main__":
    # Until the command's own handlers stand, an interrupt ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    from fedfuse_ray.stopping import ending
    from fedfuse_ray.terminal import exit_status

    def command() -> None:
        """Import the commands within what an interrupt ends with one line, and run one."""
        from fedfuse_ray.cli import app

        app(standalone_mode=False)

    sys.exit(exit_status(ending(command)))
