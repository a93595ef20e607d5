"""The metadata service of a virtual machine, as a proxy answers for its address."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class MetadataService:
    """A real HTTP server; processes reach it through `environment`, as the address itself is nobody's here."""

    def __init__(self, name: str | None = None) -> None:
        """Start it; `name` is the machine's, None: that is not answered."""
        self.events: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.answer_events = True
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append(self.path)
                content = service.answer(self.path, self.headers.get("Metadata"), name)
                self.send_response(200 if content is not None else 404)
                self.end_headers()
                self.wfile.write((content or "").encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.environment = {"HTTP_PROXY": f"http://127.0.0.1:{self.server.server_port}", "NO_PROXY": ""}

    def answer(self, path: str, header: str | None, name: str | None) -> str | None:
        """The text, or None: there is no such page."""
        if header != "true":
            return None
        if path == "http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01" and self.answer_events:
            return json.dumps({"DocumentIncarnation": len(self.events), "Events": self.events})
        if path.startswith("http://169.254.169.254/metadata/instance/compute/name?"):
            return name
        return None

    def announce(self, number: str = "A123", not_before: str = "", kind: str = "Preempt", **more: Any) -> None:
        """Add an event as the service writes it."""
        event = {
            "EventId": number,
            "EventStatus": "Scheduled",
            "EventType": kind,
            "ResourceType": "VirtualMachine",
            "Resources": ["vmss_3"],
            "NotBefore": not_before,
            "Description": "",
            "EventSource": "Platform",
            "DurationInSeconds": -1,
        }
        self.events = [*self.events, event | more]

    def withdraw(self) -> None:
        """No event is left."""
        self.events = []

    def close(self) -> None:
        """Answer no more."""
        self.server.shutdown()
        self.server.server_close()
