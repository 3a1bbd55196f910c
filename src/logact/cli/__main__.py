"""``python -m logact.cli``."""

import sys

from logact.cli.main import main

sys.exit(main())
