"""A stand-in for NVIDIA's DCGM exporter: a real server whose page has the energy counters that a test sets.

Its lines are shaped as those of the exporter up to 4.8: millijoules since the driver was loaded, labels gpu and UUID.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripted_http import ScriptedServer
from scripted_replies import Reply, Request

from gateway.domain.records import DCGM_ENERGY

GPU_0 = "GPU-5b4e07f6-3a86-4340-039d-25f2a83cdc43"
GPU_1 = "GPU-1f027ee8-6e1e-2b8c-0108-3d370e5f0418"
_UUIDS = {0: GPU_0, 1: GPU_1}


def counter_lines(millijoules: Mapping[int, int], *, more: str = "") -> bytes:
    """The counters' family: by index of the GPU. `more`: further labels as they stand there."""
    rest = f",{more}" if more else ""
    return "".join(
        [
            f"# HELP {DCGM_ENERGY} Total energy consumption since boot (in mJ).\n",
            f"# TYPE {DCGM_ENERGY} counter\n",
            *(
                f'{DCGM_ENERGY}{{gpu="{gpu}",UUID="{_UUIDS.get(gpu, gpu)}",device="nvidia{gpu}",'
                f'modelName="NVIDIA L40S",Hostname="gpu1"{rest}}} {value}\n'
                for gpu, value in millijoules.items()
            ),
        ]
    ).encode()


class EnergyExporter(ScriptedServer):
    """`async with` it, set `millijoules` by the GPUs' indexes, and read `url` + /metrics."""

    def __init__(self, millijoules: Mapping[int, int] | None = None) -> None:
        super().__init__()
        self.millijoules = dict(millijoules or {0: 1_000_000})

    def usual(self, request: Request) -> Reply:
        if request.path != "/metrics":
            return super().usual(request)
        power = '# TYPE DCGM_FI_DEV_POWER_USAGE gauge\nDCGM_FI_DEV_POWER_USAGE{gpu="0"} 250.5\n'
        return Reply.text(power + counter_lines(self.millijoules).decode())

    def meter(self, *gpus: Any, **fields: Any) -> dict[str, Any]:
        """What a replica of the registry says to have it read."""
        return {"url": f"{self.url}/metrics", "gpus": list(gpus) or [0], **fields}
