import pytest


@pytest.fixture(scope="session")
def cupy():
    """CuPy with a device, or a skip that says what is missing."""
    module = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
    try:
        count = module.cuda.runtime.getDeviceCount()
    except module.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no CUDA device: {error}")
    if not count:
        pytest.skip("no CUDA device")
    return module
