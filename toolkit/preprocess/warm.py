"""Imported by a worker as it starts: everything that its first case would otherwise wait for."""

import kernels._compiled  # noqa: F401
import toolkit.archive.catalog
import toolkit.archive.regions
import toolkit.preprocess.extract  # noqa: F401
