"""The nodule store: ``Store.open(path)`` and ``Store.create(...)``."""

from toolkit.store.format import Nodule
from toolkit.store.reader import Store

__all__ = ["Nodule", "Store"]
