"""The rows of each cluster of a labelling, a chunk of rows at a time, so that no list of all rows is held in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpuclust.model.records import NOISE, sizes_of
from gpuclust.runtime.blocks import BLOCK_ROWS, RUN_BLOCKS

CHUNK_ROWS = BLOCK_ROWS * RUN_BLOCKS


def members(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Cluster -> the numbers of its rows (n,) int64, ascending. The clusters ascend too; noise is first."""
    few = labels.max(initial=NOISE) < np.iinfo(np.int16).max
    by_label = np.argsort(labels.astype(np.int16) if few else labels, kind="stable")  # 16 bits sort in linear time
    present, starts = np.unique(labels[by_label], return_index=True)
    split = np.split(by_label, starts[1:]) if len(labels) else []
    return dict(zip((int(c) for c in present), split, strict=True))


class Members:
    """The rows of the clusters of labels (n_rows,) int32. ``sizes``: cluster -> number of rows, ascending, noise last."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels
        self._only: dict[int, np.ndarray] | None = None
        sizes = sizes_of(labels)
        self.sizes = {c: int(sizes[c]) for c in np.flatnonzero(sizes).tolist()}
        if n_noise := len(labels) - int(sizes.sum()):
            self.sizes[NOISE] = n_noise

    @property
    def clusters(self) -> tuple[int, ...]:
        """The clusters that have rows, ascending, noise last."""
        return tuple(self.sizes)

    def chunks(self) -> Iterator[dict[int, np.ndarray]]:
        """Cluster -> its rows among the next `CHUNK_ROWS` rows, in the order of the table."""
        if len(self.labels) > CHUNK_ROWS:
            for start in range(0, len(self.labels), CHUNK_ROWS):
                found = members(self.labels[start : start + CHUNK_ROWS])
                yield {c: rows + start for c, rows in found.items()}
            return
        if self._only is None:
            self._only = members(self.labels)
        yield self._only

    def whole(self) -> dict[int, np.ndarray]:
        """Cluster -> all its rows. This takes 8 bytes per row of the table."""
        parts: dict[int, list[np.ndarray]] = {c: [] for c in self.sizes}
        for chunk in self.chunks():
            for cluster, rows in chunk.items():
                parts[cluster].append(rows)
        return {c: found[0] if len(found) == 1 else np.concatenate(found) for c, found in parts.items()}
