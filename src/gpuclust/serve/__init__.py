"""A wing of its own: reads an export folder, and of the rest of gpuclust imports only the errors."""
