"""Strict stand-ins for the GPU libraries: they run the GPU code on any machine, refuse what the real types refuse, and count copies.

`device` is the device: its counters and its failures. `simulator` makes numba's CUDA simulator strict and fast. `arrays`, `cupy`, `cuml`,
`cudf` and `rmm` stand in for the libraries; `install` puts them in place. `signatures.txt` holds the signatures of the real libraries,
which a test compares with those that are installed.
"""
