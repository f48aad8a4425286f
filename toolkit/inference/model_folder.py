"""Where a model lies: in a run, or in a folder of its own."""

from pathlib import Path

from toolkit.errors import Problem, UsageError
from toolkit.training.run_folder import RunFolder


def model_folder(path: Path) -> Path:
    """Return the model's folder of a run, or the folder itself; raises `UsageError` E-RUN-001."""
    for folder in (RunFolder(path).model, path):
        if (folder / "model.json").is_file():
            return folder
    action = "Nothing done; name a run that toolkit train has finished, or a folder with model.json"
    raise UsageError(Problem("E-RUN-001", "no trained model here", action=action, files=(str(path),)))
