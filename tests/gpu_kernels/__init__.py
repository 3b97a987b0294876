"""Every CUDA kernel, compiled for each kind of device without one: registers, shared memory, spills, instructions of its loops."""
