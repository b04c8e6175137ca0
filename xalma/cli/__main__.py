"""python -m xalma.cli: the command `xalma`."""

import sys

from xalma.cli.main import main

sys.exit(main())
