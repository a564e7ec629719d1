"""`python -m saidl.report` is `saidl report`, where no command is installed."""

import sys

from saidl.cli import main

sys.exit(main(["report", *sys.argv[1:]]))
