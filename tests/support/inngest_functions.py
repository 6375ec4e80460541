"""A stand-in for the part of Inngest's REST API v2 that lists functions, with answers like the real one's.

Source: Inngest v1.43, `proto/api/v2/service.proto`; the types of triggers: `pkg/api/v2/enum_json.go`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

SIGNING_KEY = "signkey-test-0123456789abcdef"
Json = dict[str, Any]


def function(name: str, *events: str, priority: str | None = None, crons: tuple[str, ...] = ()) -> Json:
    triggers = [{"type": "EVENT", "value": event} for event in events]
    triggers += [{"type": "CRON", "value": cron} for cron in crons]
    configuration: Json = {"cancellations": [], "retries": {"value": 4, "isDefault": True}}
    if priority is not None:
        configuration["priority"] = priority
    return {"id": name, "name": name, "triggers": triggers, "configuration": configuration}


@dataclass
class RestApi:
    """`GET /v2/apps` and `GET /v2/apps/{id}/functions`, two items a page."""

    functions: dict[str, list[Json]] = field(default_factory=dict)
    lists_functions: bool = True

    async def apps(self, request: Request) -> Response:
        return self._page(request, [{"id": name, "name": name} for name in self.functions])

    async def of_app(self, request: Request) -> Response:
        return self._page(request, self.functions[request.path_params["app"]])

    def _page(self, request: Request, items: list[Json]) -> Response:
        if not self.lists_functions:
            return JSONResponse({"errors": [{"code": "not_found", "message": "Not found"}]}, 404)
        if request.headers.get("Authorization") != f"Bearer {SIGNING_KEY}":
            return JSONResponse({"errors": [{"code": "authn_failed", "message": "Invalid"}]}, 401)
        start = int(request.query_params.get("cursor", "0"))
        more = start + 2 < len(items)
        page = {"hasMore": more, "limit": 2} | ({"cursor": str(start + 2)} if more else {})
        return JSONResponse({"data": items[start : start + 2], "metadata": {}, "page": page})
