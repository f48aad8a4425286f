"""Which regions of a segmentation or structure set are nodules, by what they are called and said to be."""

import re
from dataclasses import dataclass
from typing import NamedTuple


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A planning volume is a nodule with a safety margin: larger than what was seen.
_PLANNING = ("ptv", "ctv", "itv", "igtv")
_NODULE = _set(
    """nodule nodules lesion lesions tumor tumors tumour tumours mass masses neoplasm neoplasms cancer
    carcinoma metastasis metastases met mets"""
)
_ANATOMY = _set(
    """lung lungs lobe lobes fissure pulmonary parenchyma airway airways trachea bronchus bronchi bronchial
    carina pleura heart cardiac atrium ventricle pericardium myocardium aorta artery arteries vein veins
    vessel vessels cava body external skin patient outline cord spinal spinalcord canal spine vertebra
    vertebrae esophagus oesophagus eso oesoph larynx thyroid liver stomach kidney kidneys spleen pancreas
    bowel colon duodenum gallbladder adrenal bladder prostate brain skull breast breasts rib ribs sternum
    clavicle clavicula scapula humerus bone bones skeleton costal cartilage cartilages muscle muscles fat
    chest chestwall thorax mediastinum hilum diaphragm plexus lymph couch table bolus avoid avoidance prv
    isocenter isocentre marker dose ring background"""
)
# RT ROI Interpreted Type (PS3.3 C.8.8.8) that is no lesion, and "ANATOMY", which a segmentation's category
# of anatomical structure or tissue becomes.
_OTHER_KINDS = _set(
    """ANATOMY EXTERNAL PTV CTV TREATED_VOLUME IRRAD_VOLUME BOLUS AVOIDANCE ORGAN MARKER REGISTRATION
    ISOCENTER CONTRAST_AGENT CAVITY BRACHY_CHANNEL BRACHY_ACCESSORY BRACHY_SRC_APP BRACHY_CHNL_SHLD
    SUPPORT FIXATION DOSE_REGION CONTROL DOSE_MEASUREMENT"""
)
_WORD = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


class NamedRegion(NamedTuple):
    """A segment or a region of interest as its file describes it. Names may be identifiers.

    `meaning` is the stated property type of a segment; `kind` an RT ROI Interpreted Type, or ``ANATOMY``.
    """

    number: int
    name: str
    meaning: str = ""
    kind: str = ""


@dataclass(frozen=True)
class RegionRule:
    """How regions are chosen; part of a store's identity.

    Attributes
    ----------
    pattern
        Regular expression that a name must hold, in any case; with it the built-in rule is off.
    name
        Of the built-in rule: raise it when other regions would be taken.
    """

    pattern: str = ""
    name: str = "no anatomy, no planning volume (1)"

    def takes(self, region: NamedRegion) -> bool:
        """Tell whether a region is a nodule.

        By its words: a planning volume never is, a nodule or a GTV always, anatomy never. Then by its
        stated kind. A region that says nothing of itself is one.
        """
        if self.pattern:
            return re.search(self.pattern, region.name, re.IGNORECASE) is not None
        words = _words(f"{region.name} {region.meaning}")
        if any(word.startswith(_PLANNING) for word in words):
            return False
        if words & _NODULE or any(word.startswith("gtv") for word in words):
            return True
        return not words & _ANATOMY and region.kind.upper() not in _OTHER_KINDS


def _words(text: str) -> set[str]:
    """Return the words of a name in lower case: ``LungLeft_2`` holds lungleft, lung and left."""
    return {word.lower() for pattern in (_WORD, _CAMEL) for word in pattern.findall(text)}
