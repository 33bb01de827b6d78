"""The interface's description (OpenAPI 3.1): what FastAPI makes of the routes, and what it does not know."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI

from delaystream.console.api.described.examples import EXAMPLES
from delaystream.console.api.models import Problem
from delaystream.console.api.problems import MEDIA_TYPE

_BY_FASTAPI: Final = "422"
_PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_PROBLEMS: Final[dict[str, Any]] = {
    "4XX": {"description": "What was asked for is refused, or is not there.", "content": _PROBLEM},
    "503": {"description": "The history's database cannot be asked now.", "content": _PROBLEM},
}

_SCHEMES: Final[dict[str, Any]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token that `delaystream console token` printed. A console on loopback may ask for "
        "none: `/v1/health` says so.",
    }
}
#: Any of them: the empty one is for a console that asks nobody.
_SECURITY: Final[list[dict[str, Any]]] = [{"token": []}, {}]


def install(app: FastAPI) -> None:
    """Have problems described as they are answered, and examples shown."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = describe()
            for operations in description["paths"].values():
                for operation in operations.values():
                    # Every parameter that is not valid is a problem, too, with 400.
                    operation["responses"].pop(_BY_FASTAPI, None)
                    operation["responses"] |= _PROBLEMS
                    operation["security"] = _SECURITY
            description["components"]["securitySchemes"] = _SCHEMES
            schemas = description["components"]["schemas"]
            schemas["Problem"] = Problem.model_json_schema()
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            for name, example in EXAMPLES.items():
                schemas[name]["examples"] = [example]
            app.openapi_schema = description
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
