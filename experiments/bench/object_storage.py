"""A job on a table in an object store: the same labels as from the local file, and the bytes that it reads.

    python experiments/bench/object_storage.py            # about a minute on two cores; needs moto[server]

A Parquet file of generated numbers, of which a job uses half of the columns, is put into a store on this machine that speaks S3's
protocol (moto). A proxy between the two counts the bytes that the store sends. They are compared with the compressed size of the columns
that are used. Target: at most 1.2 times that, and equal labels and metrics.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import heading, write

TARGET = 1.2
SIZE = 1 << 16


class CountingProxy:
    """Passes connections on to another port of this machine, and counts the bytes that come back."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.received = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listening.accept()
            server = socket.create_connection(("127.0.0.1", self._to))
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(SIZE):
                if counted:
                    self.received += len(piece)
                target.sendall(piece)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def table(n_rows: int, n_columns: int) -> pa.Table:
    """Normal numbers in four clusters, and an id."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 4, n_rows)[:, None] * 3.0 + rng.normal(size=(n_rows, n_columns))
    columns = {"id": [f"row-{i:08d}" for i in range(n_rows)]}
    return pa.table(columns | {f"f{i}": X[:, i] for i in range(n_columns)})


def main() -> int:
    """Run the job from both places, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--columns", type=int, default=20)
    options = parser.parse_args()
    heading("Object storage", f"target: at most {TARGET} times the bytes of the columns used, and equal labels")
    port = free_port()
    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as moto,
    ):
        try:
            return compare(Path(folder), port, options.rows, options.columns)
        finally:
            moto.kill()


def compare(folder: Path, port: int, n_rows: int, n_columns: int) -> int:
    """The comparison, with a store that listens on a port."""
    while True:
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=2).close()
            break
        time.sleep(0.1)
    proxy = CountingProxy(port)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
    }
    from pyarrow import fs

    import gpuclust as gc

    path = folder / "table.parquet"
    pq.write_table(table(n_rows, n_columns), path, row_group_size=100_000)
    address = f"s3://x/?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
    store, _ = fs.FileSystem.from_uri(address)
    store.create_dir("bench")
    with store.open_output_stream("bench/table.parquet") as out:
        out.write(path.read_bytes())
    features = [f"f{i}" for i in range(n_columns // 2)]
    seconds, runs = {}, {}
    for name, place in (("local", str(path)), ("s3", "s3://bench/table.parquet")):
        began = time.perf_counter()
        runs[name] = gc.fit(place, gc.KMeans(n_clusters=4, n_init=1), features=features, tracking=None, progress=False)
        seconds[name] = time.perf_counter() - began
    metadata = pq.read_metadata(path)
    names = metadata.schema.names
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    sizes = {n: sum(g.column(j).total_compressed_size for g in groups) for j, n in enumerate(names)}
    used = sum(sizes[name] for name in ["id", *features])
    ratio = proxy.received / used
    equal = bool(np.array_equal(runs["local"].labels_, runs["s3"].labels_))
    times = ("load_seconds", "prepare_seconds", "fit_seconds", "score_seconds")
    alike = all(runs["s3"].metrics[k] == v for k, v in runs["local"].metrics.items() if k not in times)
    print(
        f"{n_rows:,} rows, {len(features)} of {n_columns} columns used: {used / 1e6:.1f} MB of {path.stat().st_size / 1e6:.1f}"
    )
    print(f"read {proxy.received / 1e6:.1f} MB: {ratio:.3f} times; labels equal: {equal}, metrics equal: {alike}")
    print(f"job: local {seconds['local']:.1f} s (first, compiles), s3 {seconds['s3']:.1f} s")
    record = {
        "rows": n_rows,
        "columns": n_columns,
        "used": len(features),
        "bytes_used": used,
        "bytes_read": proxy.received,
    }
    write("object_storage", record | {"ratio": ratio, "target": TARGET, "labels_equal": equal, "metrics_equal": alike})
    return 0 if ratio <= TARGET and equal and alike else 1


if __name__ == "__main__":
    sys.exit(main())
