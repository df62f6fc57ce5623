"""What the build adds to pyproject.toml: the FBGEMM that fits the machine, and conf/ as package data."""

import os
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

STAND_IN = "launch/fbgemm-gpu-cpu-only"


def gpu_answers() -> bool:
    """Tell whether an NVIDIA driver of this machine names a GPU.

    Returns
    -------
    bool
        Whether ``nvidia-smi -L`` lists at least one. launch/setup.sh asks the same question.
    """
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU " in listed.stdout


def build_kind() -> str:
    """Choose between the two builds.

    Returns
    -------
    str
        "cpu" or "cuda": what the environment variable BIGEMBED_BUILD says, else what the machine has.

    Raises
    ------
    ValueError
        If BIGEMBED_BUILD is something else than auto, cpu or cuda.
    """
    kind = os.environ.get("BIGEMBED_BUILD") or "auto"
    if kind == "auto":
        return "cuda" if gpu_answers() else "cpu"
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"BIGEMBED_BUILD is '{kind}': it can be auto, cpu or cuda")
    return kind


def fbgemm_requirement(root: Path, kind: str) -> str:
    """Say where the distribution fbgemm-gpu, which TorchRec requires, is to come from.

    Parameters
    ----------
    root : Path
        The project's folder.
    kind : str
        "cpu" or "cuda".

    Returns
    -------
    str
        The CUDA build by its version, or a reference to the stand-in in this checkout: the build for CPUs goes by
        another name, and a requirement cannot say "this one instead of that one".
    """
    if kind == "cuda":
        return "fbgemm-gpu==1.8.0"
    return f"fbgemm-gpu @ {(root.resolve() / STAND_IN).as_uri()}"


class FbgemmForThisMachine(MetadataHookInterface):
    """Fills in the dependencies."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``metadata["dependencies"]``: those that pyproject.toml lists, and FBGEMM.

        Parameters
        ----------
        metadata : dict
            The table ``project``, changed in place.
        """
        fbgemm = fbgemm_requirement(Path(self.root), build_kind())
        metadata["dependencies"] = [*self.config["runtime-dependencies"], fbgemm]


class ConfAsPackageData(BuildHookInterface):
    """Puts conf/ into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Map conf/ to bigembed/conf in a real wheel; in an editable install the package finds conf/ beside itself.

        Parameters
        ----------
        version : str
            "standard" or "editable".
        build_data : dict
            What the wheel is made from, changed in place.
        """
        if version == "standard":
            build_data["force_include"]["conf"] = "bigembed/conf"
