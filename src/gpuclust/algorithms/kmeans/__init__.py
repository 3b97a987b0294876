"""K-Means: initialisation, Lloyd's iterations, CPU and CUDA kernels."""
