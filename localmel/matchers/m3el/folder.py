"""A trained M3EL network on disk: `matcher_folder`, with its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from localmel.encode.space import Space
from localmel.matchers.m3el.network import M3el, M3elSettings
from localmel.matchers.trained import VERSION, TrainedMatcher, read_matcher, save_matcher

__all__ = ["KIND", "VERSION", "M3elFolder", "load_m3el", "save_m3el"]

KIND = "m3el"
M3elFolder: TypeAlias = TrainedMatcher[M3el]


def save_m3el(
    folder: Path, network: M3el, text_space: Space, image_space: Space | None, facts: Mapping[str, Any]
) -> None:
    """Write the folder."""
    save_matcher(folder, KIND, network, network.settings, text_space, image_space, facts)


def load_m3el(folder: Path) -> M3elFolder:
    """Raises CorruptArtifact for a folder that holds no such network, or a damaged one."""
    return read_matcher(folder, KIND, lambda settings: M3el(M3elSettings(**settings)), title="M3EL")
