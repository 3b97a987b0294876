"""rmm and pynvml: memory resources that hold their parameters, and the version of the driver."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.gpu_fakes.cupy import MEMORY
from tests.gpu_fakes.signatures import StandIn, bind


class _Resource:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.parameters = bind(f"rmm.mr.{type(self).__name__}", args, kwargs).arguments


class DeviceMemoryResource(_Resource):
    """The base of all."""


class CudaMemoryResource(DeviceMemoryResource):
    """cudaMalloc."""


class CudaAsyncMemoryResource(DeviceMemoryResource):
    """cudaMallocAsync."""


class PoolMemoryResource(DeviceMemoryResource):
    """A pool."""


class LimitingResourceAdaptor(DeviceMemoryResource):
    """A limit."""


class ManagedMemoryResource(DeviceMemoryResource):
    """Managed memory."""


def make() -> dict[str, StandIn]:
    """The modules by name."""
    found = {name: StandIn(name) for name in ("rmm", "rmm.mr", "rmm.allocators", "rmm.allocators.cupy", "pynvml")}
    mr = found["rmm.mr"]
    for cls in (
        DeviceMemoryResource, CudaMemoryResource, CudaAsyncMemoryResource, PoolMemoryResource, LimitingResourceAdaptor,
        ManagedMemoryResource,
    ):  # fmt: skip
        setattr(mr, cls.__name__, cls)
    current = SimpleNamespace(resource=CudaMemoryResource())

    def set_current(resource: Any) -> None:
        if not isinstance(resource, DeviceMemoryResource):
            raise TypeError(f"{resource!r} is no memory resource")
        current.resource = resource

    mr.get_current_device_resource = lambda: current.resource
    mr.set_current_device_resource = set_current
    mr.available_device_memory = lambda: (MEMORY, MEMORY)
    found["rmm"].mr = mr
    found["rmm.allocators.cupy"].rmm_cupy_allocator = lambda n_bytes: None
    nvml = found["pynvml"]
    nvml.nvmlInit = nvml.nvmlShutdown = lambda: None
    nvml.nvmlSystemGetDriverVersion = lambda: "580.65"
    return found
