"""What takes long and says little more than its short form runs where ``TOOLKIT_TEST_LONG`` is set."""

import os

import pytest

LONG = bool(os.environ.get("TOOLKIT_TEST_LONG"))
long = pytest.mark.skipif(not LONG, reason="long: set TOOLKIT_TEST_LONG=1")
