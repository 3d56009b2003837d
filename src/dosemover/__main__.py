"""``python -m dosemover``."""

import sys

from dosemover.cli.main import main

sys.exit(main())
