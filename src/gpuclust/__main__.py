"""``python -m gpuclust`` is the command ``gpuclust``."""

import sys

from gpuclust.cli import main

sys.exit(main())
