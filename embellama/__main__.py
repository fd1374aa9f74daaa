"""Run the command line with ``python -m embellama``."""

import sys

from embellama.cli import main

sys.exit(main())
