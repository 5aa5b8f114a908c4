"""`python -m dscc.cli` is `dscc`."""

import sys

from dscc.cli.entry import main

sys.exit(main())
