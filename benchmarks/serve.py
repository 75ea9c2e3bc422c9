"""What HTTP costs: a server's throughput beside the same batches in process, its tail at half load, its memory.

    python benchmarks/serve.py BUNDLE IMAGES [--files 8] [--clients 8] [--seconds 10] [--repeats 3] [--requests 10000]

IMAGES is a folder; requests of `--files` photographs are sent over kept connections. Prints

- images a second of the server, and of `Bundle.predict` in process with batches of the size that the server made,
  taken in turn; expect the median of their ratios at 0.8 or more;
- the 99th percentile at half of that load over the time of a request alone: with arrivals at an even rate, where 3 or
  less is expected, and at random, where requests also queue behind one another by chance;
- the server's memory after a thousand and after `--requests` requests, a third of them malformed; expect no growth
  beyond 5 %.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from measure import commit, interleave, ratio, verdict

from ensembler.bundle import Bundle
from ensembler.bundle.images import find_images


class Link:
    """A kept connection that sends requests made beforehand, so that the client costs little."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.create_connection(("127.0.0.1", port))

    def ask(self, request: bytes) -> int:
        """Sends a request and reads the whole answer; its status."""
        self._socket.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            part = self._socket.recv(65536)
            if not part:
                raise ConnectionError("the server has closed the connection")
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
        while len(body) < length:
            body += self._socket.recv(65536)
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        self._socket.close()


@contextmanager
def server(bundle: Path, *options: str) -> Iterator[int]:
    """A server process; its port."""
    command = [sys.executable, "-m", "ensembler", "serve", str(bundle), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield int(re.search(r":(\d+)/", process.stdout.readline())[1])  # type: ignore[index]
    finally:
        process.terminate()
        process.wait()


def as_request(images: Sequence[bytes], body: bytes | None = None) -> bytes:
    """A whole request with some files."""
    if body is None:
        body = b"".join(
            b'--edge\r\nContent-Disposition: form-data; name="files"; filename="%d"\r\n\r\n%b\r\n' % (i, data)
            for i, data in enumerate(images)
        )
        body += b"--edge--\r\n"
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=edge\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def metric(port: int, name: str) -> float:
    """A number of /metrics."""
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: link.recv(65536), b"")).decode()
    return float(re.search(rf"(?m)^{name} (\S+)", text)[1])  # type: ignore[index]


def closed_loop(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> int:
    """Requests answered by so many clients, each of which asks again as soon as it has its answer."""
    until = time.perf_counter() + seconds
    counts = [0] * clients

    def ask(number: int) -> None:
        link = Link(port)
        for request in itertools.islice(itertools.cycle(requests), number, None):
            if time.perf_counter() >= until:
                break
            assert link.ask(request) == 200
            counts[number] += 1
        link.close()

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def alone(port: int, requests: Sequence[bytes], n: int = 50) -> float:
    """Median seconds of a request that is alone."""
    link = Link(port)
    times = []
    for request in itertools.islice(itertools.cycle(requests), n + 5):
        began = time.perf_counter()
        link.ask(request)
        times.append(time.perf_counter() - began)
    link.close()
    return statistics.median(times[5:])


def open_loop(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, at_random: bool
) -> list[float]:
    """Seconds of requests that arrive at a rate, whether or not those before are answered; sorted."""
    rng = random.Random(0)
    times: list[float] = []
    local = threading.local()

    def ask(request: bytes, due: float) -> None:
        if not hasattr(local, "link"):
            local.link = Link(port)
        local.link.ask(request)
        times.append(time.perf_counter() - due)

    source = itertools.cycle(requests)
    with ThreadPoolExecutor(32) as pool:
        due = began = time.perf_counter()
        while due - began < seconds:
            due += rng.expovariate(rate) if at_random else 1 / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            pool.submit(ask, next(source), due)
    return sorted(times)


def measure_memory(port: int, files: Sequence[bytes], n_requests: int) -> None:
    """Prints the server's memory after the first thousand requests and after all."""
    small = [as_request(files[:1]), as_request([b"no image"]), as_request([], b"--edge\r\nbroken")]
    memory = []
    for n in (1000, n_requests - 1000):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: _quietly(port, small[i % 3]), range(n)))
        memory.append(metric(port, "process_resident_memory_bytes") / 1e6)
    growth = memory[1] / memory[0]
    print(f"  {memory[0]:.0f} MB after 1,000 requests, {memory[1]:.0f} MB after {n_requests:,}")
    print(f"memory {growth:.3f} times, bar 1.05: {verdict(growth, 1.05, False)}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()

    files = [f.read_bytes() for f in itertools.islice(find_images([options.images]), 512)]
    requests = [
        as_request(files[i : i + options.files])
        for i in range(0, max(1, len(files) - options.files + 1), options.files)
    ]
    bundle = Bundle.load(options.bundle)
    print(
        f"commit {commit()}, {bundle.name}: {len(bundle.members)} members, {options.files} photographs a request"
    )
    with server(options.bundle) as port:
        sizes: list[float] = []

        def served() -> float:
            images, batches = (
                metric(port, "ensembler_batch_images_sum"),
                metric(port, "ensembler_batch_images_count"),
            )
            began = time.perf_counter()
            closed_loop(port, requests, options.clients, options.seconds)
            images = metric(port, "ensembler_batch_images_sum") - images
            batches = metric(port, "ensembler_batch_images_count") - batches
            sizes.append(images / batches)
            return images / (time.perf_counter() - began)

        def in_process() -> float:
            size = max(1, round(sizes[-1]))
            source = itertools.cycle(files)
            done, began = 0, time.perf_counter()
            while time.perf_counter() - began < options.seconds:
                done += len(bundle.predict(itertools.islice(source, size)))
            return done / (time.perf_counter() - began)

        speeds = interleave({"served": served, "in process": in_process}, options.repeats)
        middle, low, high = ratio(speeds, "served", "in process")
        for name, values in speeds.items():
            print(f"  {name}: {statistics.median(values):,.1f} images a second")
        print(f"  batches of {statistics.fmean(sizes):.1f} images")
        print(
            f"throughput {middle:.2f} times ({low:.2f} to {high:.2f}), bar 0.80: {verdict(middle, 0.8, True)}"
        )

        tails: dict[str, list[float]] = {"even": [], "random": []}
        rate = statistics.median(speeds["served"]) / options.files / 2
        for _ in range(options.repeats):
            one = alone(port, requests)
            for kind, found in tails.items():
                times = open_loop(port, requests, rate, options.seconds, at_random=kind == "random")
                found.append(times[int(0.99 * (len(times) - 1))] / one)
            slow = 1000 * one * tails["even"][-1]
            print(f"  alone {1000 * one:.1f} ms; p99 at {rate:.1f} requests a second {slow:.1f} ms")
        tail = statistics.median(tails["even"])
        print(f"p99 at half load {tail:.2f} times a request alone, bar 3.00: {verdict(tail, 3.0, False)}")
        print(f"  with arrivals at random {statistics.median(tails['random']):.2f} times")

        measure_memory(port, files, options.requests)


def _quietly(port: int, request: bytes) -> int:
    link = Link(port)
    try:
        return link.ask(request)
    finally:
        link.close()


if __name__ == "__main__":
    main()
