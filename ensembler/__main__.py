"""`python -m ensembler` is `ensembler`."""

import sys

from .cli import main

sys.exit(main())
