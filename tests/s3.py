"""An S3 server on the loopback interface: ``python s3.py`` serves until its input is closed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import requests


class S3:
    """A running server, and what a client must be told to find it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.env = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }
        self._numbers = count(1)

    def bucket(self) -> str:
        """Make an empty bucket; return its address."""
        name = f"bucket-{next(self._numbers)}"
        # Any signature will do there, but without one the server cannot tell that S3 is meant.
        requests.put(
            f"{self.address}/{name}",
            headers={"Authorization": "AWS4-HMAC-SHA256 Credential=testing/0/us-east-1/s3/"},
            timeout=60,
        ).raise_for_status()
        return f"s3://{name}"


@contextmanager
def serve_s3() -> Iterator[S3]:
    """A server in a process of its own, so that nothing of it is imported into the tests."""
    with subprocess.Popen(
        [sys.executable, Path(__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a line for each request
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the S3 server did not start; is moto[server] installed?"
        try:
            yield S3(address)
        finally:
            process.stdin.close()


def main() -> None:
    """Print the address, serve until standard input ends: when the tests do, however they end."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
