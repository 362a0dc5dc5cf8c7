"""OpenTelemetry logs: OTLP 1 over HTTP in its JSON encoding, one request per batch.

The answer is the acknowledgement. If it is lost the batch is sent again: that is where
duplicates come from. A batch that the receiver calls unusable (400, 413, 422), and records
that it rejects (`partialSuccess`), are lost and counted; everything else, also a wrong
token, is tried again, so that a mistake in a configuration loses nothing.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

from ..catalogue import Severity, Value
from ..formats.common import digest, milliseconds, version
from ..record import AuditRecord
from .base import TIMEOUT, Sink, require_private, tls_context

_PATH: Final = "/v1/logs"
_UNUSABLE: Final = (400, 413, 422)
_MAX_ANSWER: Final = 64 * 1024
_MAX_PAUSE: Final = 300.0
_SEVERITIES: Final = {  # OpenTelemetry's severity numbers: INFO, INFO2, WARN, ERROR, FATAL
    Severity.INFORMATIONAL: 9,
    Severity.LOW: 10,
    Severity.MEDIUM: 13,
    Severity.HIGH: 17,
    Severity.CRITICAL: 21,
}
# Whatever a body may be that is no answer: also one that is nested, or counts, without end.
_NO_ANSWER: Final = (ValueError, TypeError, AttributeError, RecursionError, OverflowError)
_Json: TypeAlias = "str | int | bool | dict[str, _Json] | list[_Json]"


class Otlp(Sink):
    """`otlp+http://HOST:4318`; the path is /v1/logs unless the URL has another."""

    def deliver(self, records: Sequence[AuditRecord]) -> int:
        """See `Sink`."""
        headers = {"Content-Type": "application/json", "User-Agent": f"pqc-iiot/{version()}"}
        if self.config.token_file:
            require_private(self.config.token_file)
            token = Path(self.config.token_file).read_text(encoding="ascii").strip()
            headers["Authorization"] = f"Bearer {token}"
        body = json.dumps(self.request(records), separators=(",", ":"))
        connection = self._connection()
        try:
            connection.request("POST", self.config.parts.path or _PATH, body, headers)
            answer = connection.getresponse()
            return self._judge(answer, answer.read(_MAX_ANSWER), len(records))
        except OSError:  # first: some of TLS are ValueErrors too
            raise
        except (http.client.HTTPException, *_NO_ANSWER) as error:
            raise ConnectionError(f"no answer in HTTP: {type(error).__name__}") from None
        finally:
            connection.close()

    def request(self, records: Sequence[AuditRecord]) -> dict[str, _Json]:
        """The body of a request: an ExportLogsServiceRequest."""
        attributes = {"service.name": "pqc-iiot", "service.version": version()}
        if records[0].device:
            attributes["host.name"] = records[0].device
        scope: dict[str, _Json] = {"name": "pqc_iiot.audit", "version": version()}
        logs: list[_Json] = [self._log_record(record) for record in records]
        resource: dict[str, _Json] = {"attributes": _attributes(attributes)}
        scope_logs: list[_Json] = [{"scope": scope, "logRecords": logs}]
        return {"resourceLogs": [{"resource": resource, "scopeLogs": scope_logs}]}

    def _log_record(self, record: AuditRecord) -> _Json:
        time = str(milliseconds(record) * 1_000_000)
        attributes: dict[str, Value] = {
            "pqc_iiot.seq": record.seq,
            "pqc_iiot.id": record.id,
            "pqc_iiot.hash": digest(record),
            "pqc_iiot.reason": record.reason,
            "pqc_iiot.peer": record.peer,
        }
        attributes |= {f"pqc_iiot.detail.{name}": value for name, value in record.detail.items()}
        return {
            "timeUnixNano": time,
            "observedTimeUnixNano": time,
            "severityNumber": _SEVERITIES[record.severity],
            "severityText": record.severity.name,
            "eventName": record.event,
            "body": {"stringValue": self.format(record)},
            "attributes": _attributes(attributes),
        }

    def _judge(self, answer: http.client.HTTPResponse, body: bytes, count: int) -> int:
        if answer.status in _UNUSABLE:
            return count
        if not 200 <= answer.status < 300:
            wait = answer.headers.get("Retry-After", "")
            self.pause = min(float(wait), _MAX_PAUSE) if wait.isdecimal() else 0.0
            raise ConnectionRefusedError(f"the receiver answered {answer.status}")
        self.pause = 0.0
        partial = json.loads(body or b"{}").get("partialSuccess") or {}
        return min(count, max(0, int(partial.get("rejectedLogRecords", 0))))

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self.config.address
        if self.config.scheme == "otlp+https":
            context = tls_context(self.config)
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT)


def _attributes(values: dict[str, Value] | dict[str, str]) -> list[_Json]:
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value != ""]


def _value(value: Value) -> _Json:
    if isinstance(value, bool):
        return {"boolValue": value}
    # 64-bit integers are texts in the JSON encoding of protocol buffers.
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}
