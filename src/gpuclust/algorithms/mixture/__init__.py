"""Gaussian mixtures: initialisation, EM, CPU and CUDA kernels."""
