import sys

from saidl.report import main

sys.exit(main())
