"""Where the numbers are made: one file per backend, the store that a sweep shares, and our own passes."""
