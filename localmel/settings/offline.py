"""Keep every library offline and silent by environment variables, set before any heavy import."""

from __future__ import annotations

import os

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}
"Switches that turn telemetry and model hubs off.  Libraries read them on import, so they must be set before."


def go_offline() -> None:
    """Set the switches of OFFLINE in this process and, by inheritance, in every worker."""
    os.environ.update(OFFLINE)
