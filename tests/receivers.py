"""Receivers for sinks: a real rsyslog, a collector of OTLP, and what stands in for a journal."""

from __future__ import annotations

import json
import shutil
import signal as signals
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODULES = Path("/usr/lib").glob("*/rsyslog")
PACKAGES = "run `make test`, or `apt-get install rsyslog rsyslog-gnutls rsyslog-openssl`"


def wait_until(condition: Any, what: str) -> None:
    """For what has no event of its own; the limit is no measure of speed."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, f"not in 30 s: {what}"
        time.sleep(0.005)


class Rsyslog:
    """An rsyslog on a free loopback port that keeps what it reads in a file, at once."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        *,
        certificate: tuple[Path, Path] | None = None,
        ca_file: Path | None = None,
        driver: str = "ossl",
        client: str = "",
    ) -> None:
        program = shutil.which("rsyslogd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert program, f"rsyslogd is missing: {PACKAGES}"
        kind_of_socket = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind_of_socket) as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.kind = kind
        self.out = folder / f"rsyslog-{self.port}.out"
        config = folder / f"rsyslog-{self.port}.conf"
        tls = ""
        settings = f'workDirectory="{folder}" maxMessageSize="64k"'
        if certificate is not None:
            library = "lmnsd_ossl.so" if driver == "ossl" else "lmnsd_gtls.so"
            found = [*Path("/usr/lib").glob(f"*/rsyslog/{library}")]
            assert found, f"rsyslog's {driver} driver is missing: {PACKAGES}"
            settings += (
                f' defaultNetstreamDriver="{driver}"'
                f' defaultNetstreamDriverCAFile="{ca_file}"'
                f' defaultNetstreamDriverCertFile="{certificate[0]}"'
                f' defaultNetstreamDriverKeyFile="{certificate[1]}"'
            )
            mode = f'"x509/name" permittedPeer="{client}"' if client else '"anon"'
            tls = (
                f' streamDriver.name="{driver}" streamDriver.mode="1" streamDriver.authMode={mode}'
            )
        module = "imudp" if kind == "udp" else "imtcp"
        options = tls if kind == "tls" else ""
        config.write_text(
            f"global({settings})\n"
            'main_queue(queue.type="Direct")\n'
            f'module(load="{module}"{options})\n'
            'template(name="raw" type="string" string="%rawmsg%\\n")\n'
            f'ruleset(name="r" queue.type="Direct") {{ action(type="omfile" file="{self.out}"'
            ' template="raw" flushOnTXEnd="on") }\n'
            f'input(type="{module}" address="127.0.0.1" port="{self.port}" ruleset="r")\n'
        )
        self._command = [program, "-n", "-iNONE", "-f", str(config)]
        self.start()

    def start(self) -> None:
        """Start it, again if need be, and return once it listens."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._listens, "rsyslog listens")

    def _listens(self) -> bool:
        assert self._process.poll() is None, "rsyslogd did not start"
        table = Path("/proc/net/udp" if self.kind == "udp" else "/proc/net/tcp").read_text()
        state = "07" if self.kind == "udp" else "0A"
        return any(
            line.split()[1].endswith(f":{self.port:04X}") and line.split()[3] == state
            for line in table.splitlines()[1:]
        )

    def signal(self, number: signals.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """A power cut."""
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signals.SIGCONT)
            self._process.kill()
            self._process.wait(10)

    @property
    def lines(self) -> list[str]:
        """Every message so far."""
        return self.out.read_text(encoding="utf-8").splitlines() if self.out.exists() else []


class Collector:
    """Takes OTLP over HTTP or HTTPS; answers as told, in order, and 200 after that."""

    def __init__(self, tls: tuple[Path, Path] | None = None) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.answers: list[tuple[int, dict[str, str], bytes] | None] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = collector.answers.pop(0) if collector.answers else (200, {}, b"{}")
                collector.requests.append((self.path, dict(self.headers), json.loads(body)))
                if answer is None:  # the answer is lost
                    self.close_connection = True
                    return
                status, headers, text = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # clients that do not trust it

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def logs(self) -> list[dict[str, Any]]:
        """Every log record so far."""
        return [
            record
            for _, _, body in self.requests
            for resource in body["resourceLogs"]
            for scope in resource["scopeLogs"]
            for record in scope["logRecords"]
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def collector(tls: tuple[Path, Path] | None = None) -> Iterator[Collector]:
    """A collector for one test."""
    running = Collector(tls)
    try:
        yield running
    finally:
        running.close()
