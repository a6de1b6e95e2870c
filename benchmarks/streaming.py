"""Export and ingest together against each alone: is conversion hidden behind the download?

    python benchmarks/streaming.py --mb 200 --files 8 --rate 40

A loopback server sends NDJSON files at a fixed rate. Alone: download all, then ingest all. Together: each
file is encoded by a worker process as soon as it is whole, and one snapshot is committed at the end. The bar is
together <= 1.25 x the longer of the two alone, in the same run.
"""

from __future__ import annotations

import argparse
import http.server
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from ingest import amplify

from hiexchange.lake import Lake


class Slow(http.server.SimpleHTTPRequestHandler):
    """Serves a folder at ``rate`` bytes a second, over all connections together."""

    rate = 40e6

    def copyfile(self, source, outputfile) -> None:  # type: ignore[no-untyped-def]
        while chunk := source.read(1 << 18):
            outputfile.write(chunk)
            time.sleep(len(chunk) / self.rate)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def download(url: str, names: list[str], folder: Path) -> Iterator[Path]:
    for name in names:
        part = folder / (name + ".part")
        with urllib.request.urlopen(f"{url}/{name}") as answer, part.open("wb") as file:
            while chunk := answer.read(1 << 18):
                file.write(chunk)
        yield part.rename(folder / name)


def split(path: Path, count: int, folder: Path) -> list[str]:
    text = path.read_bytes()
    names, start = [], 0
    for number in range(count):
        end = len(text) if number == count - 1 else text.index(b"\n", len(text) * (number + 1) // count) + 1
        names.append(f"{path.stem}.{number:03}.ndjson")
        (folder / names[-1]).write_bytes(text[start:end])
        start = end
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--rate", type=float, default=40, help="MB/s of the server")
    parser.add_argument("--type", default="Observation")
    options = parser.parse_args()
    Slow.rate = options.rate * 1e6
    with tempfile.TemporaryDirectory() as base:
        served, first, second = (Path(base) / name for name in ("served", "alone", "together"))
        for folder in (served, first, second):
            folder.mkdir()
        (path,) = amplify(options.data, options.type, options.mb * 1_000_000, Path(base))
        names = split(path, options.files, served)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *parts: Slow(*parts, directory=str(served)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        started = time.perf_counter()
        list(download(url, names, first))
        download_s = time.perf_counter() - started
        ingest_s = Lake(Path(base) / "one").ingest(first).seconds
        started = time.perf_counter()
        report = Lake(Path(base) / "two").ingest(download(url, names, second))
        together_s = time.perf_counter() - started
        server.shutdown()
        ratio = together_s / max(download_s, ingest_s)
        print("| MB | files | server MB/s | download alone s | ingest alone s | together s | of the longer |")
        print("|---:|---:|---:|---:|---:|---:|---:|")
        print(
            f"| {options.mb} | {report.files} | {options.rate:.0f} | {download_s:.1f} | {ingest_s:.1f} | {together_s:.1f} | {ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
