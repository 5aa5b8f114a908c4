"""`python -m dscc.cli` is `dscc`."""

import sys

from dscc.cli.main import main

sys.exit(main())
