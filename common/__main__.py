"""`python -m common` is the command `course`."""

import sys

from common.cli import main

sys.exit(main())
