"""``python -m benchmarks.agentdojo``: see :mod:`benchmarks.agentdojo.report` for what it prints."""

from __future__ import annotations

import sys
import warnings

from benchmarks.agentdojo import lab

if __name__ == "__main__":
    lab.enter()
    warnings.simplefilter("ignore")
    from benchmarks.agentdojo.report import main

    sys.exit(main())
