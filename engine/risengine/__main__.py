"""``python -m risengine``: the same as the ``risengine`` command."""

import sys

from risengine.cli import main

sys.exit(main())
