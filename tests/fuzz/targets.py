"""All targets by name."""

from tests.fuzz.target import Target
from tests.fuzz.targets_dicom import dicom_targets
from tests.fuzz.targets_tables import table_targets
from tests.fuzz.targets_volumes import volume_targets

TARGETS: dict[str, Target] = {t.name: t for t in (*dicom_targets(), *volume_targets(), *table_targets())}
