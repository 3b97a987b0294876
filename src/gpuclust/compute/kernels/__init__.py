"""Fused passes over a matrix: for each, a CPU (numba) and a CUDA (numba.cuda) version beside each other."""
