"""A trained DWE+ network on disk: `matcher_folder`, with its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from localmel.encode.space import Space
from localmel.matchers.dwe.network import Dwe, DweSettings
from localmel.matchers.trained import TrainedMatcher, read_matcher, save_matcher

KIND = "dwe"
DweFolder: TypeAlias = TrainedMatcher[Dwe]


def save_dwe(
    folder: Path, network: Dwe, text_space: Space, image_space: Space | None, facts: Mapping[str, Any]
) -> None:
    """Write the folder."""
    save_matcher(folder, KIND, network, network.settings, text_space, image_space, facts)


def load_dwe(folder: Path) -> DweFolder:
    """Raises CorruptArtifact for a folder that holds no such network, or a damaged one."""
    return read_matcher(folder, KIND, lambda settings: Dwe(DweSettings(**settings)), title="DWE+")
