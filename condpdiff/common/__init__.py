"""What every room stands on: errors, files, hardware, training, large matrices, packages, settings, tasks."""

import os

# The hub's client reads these where it is imported; its own waits run into minutes behind a firewall.
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")
