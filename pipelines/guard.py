"""A small process that ends what a killed `quantmint ui` leaves behind.

    python -m quantmint.pipelines.guard SERVICE

Its standard input is a pipe whose other end `quantmint ui` alone holds. Its end, however it came,
ends the pipe. The servers were asked to stop by the kernel at that moment (PR_SET_PDEATHSIG); what
is there after a grace is killed. Until then the guard keeps the lock of the home folder, which it
inherited, so that no other service starts in between.
"""

from __future__ import annotations

import os
import signal
import sys

from quantmint.pipelines.strays import end, of_service

GRACE_SECONDS = 8.0


def main() -> None:
    """Wait for the end of standard input, then end the service's processes."""
    # A terminal that is closed, or a Ctrl-C in it, is for `quantmint ui` to answer.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    end(of_service(sys.argv[1]), grace=GRACE_SECONDS)


if __name__ == "__main__":
    main()
