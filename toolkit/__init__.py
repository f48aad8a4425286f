"""From a raw chest-CT archive to a lung-nodule malignancy classifier that can be trusted."""

__version__ = "0.1.0"
