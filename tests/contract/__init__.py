"""Checks the calls that the GPU backend makes against the libraries that it makes them to, without a GPU."""
