"""The switches that keep every library offline and silent; they are set before any heavy import."""

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
"Telemetry off, hubs off.  Read by the libraries when they are imported, so set before."


def go_offline() -> None:
    """Set the switches of OFFLINE in this process and, by inheritance, in every worker."""
    os.environ.update(OFFLINE)
