import pytest

from toolkit.phantom.anatomy import PhantomPatient, make_patient


@pytest.fixture(scope="session")
def patients() -> list[PhantomPatient]:
    return [make_patient(5, index) for index in range(12)]
