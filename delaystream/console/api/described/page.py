"""The description of the interface as a page: nothing of it comes from elsewhere."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse

from delaystream.console.vendored import RAPIDOC

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_PAGE: Final = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>delaystream: the interface</title>
<script type="module" src="/v1/docs/{RAPIDOC.name}"></script>
</head>
<body>
<rapi-doc spec-url="/v1/openapi.json" load-fonts="false" render-style="read" show-header="false"
 allow-authentication="true" allow-server-selection="false" schema-style="table"></rapi-doc>
</body>
</html>
"""


def install(app: FastAPI) -> None:
    """Have the page served."""

    @app.get("/v1/docs", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_PAGE, headers=_HEADERS)

    @app.get(f"/v1/docs/{RAPIDOC.name}", include_in_schema=False)
    async def script() -> FileResponse:
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
        }
        return FileResponse(RAPIDOC, media_type="text/javascript", headers=headers)
