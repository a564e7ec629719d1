"""`python -m saidl`: the command line."""

import sys

from saidl.cli import main

sys.exit(main())
