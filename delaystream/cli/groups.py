"""Options that belong together, declared once: a command takes the group as one parameter.

A group is a dataclass of annotated options, each with a default. `expanded` makes a function for typer, with
the single options in place of the group, that calls the command with the filled group.

A shell's arguments may be any bytes. Arguments that become text must be UTF-8: all except names of files, and
parameters marked with `ANY_BYTES`.
"""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, Final, TypeVar, get_type_hints

import typer
from typer.models import ArgumentInfo, ParameterInfo

from delaystream.cli.output import complain, tell
from delaystream.exit_codes import ExitCode

Result = TypeVar("Result")

ANY_BYTES: Final = "any bytes"
"""Annotates a text that becomes bytes by `to_bytes`, and need not be UTF-8."""


def sending(command: Callable[..., Result]) -> Callable[..., Result]:
    """As `expanded`, for a command that sends a request: Ctrl-C before that says that nothing was sent."""
    return expanded(command, "interrupted: nothing was sent")


def expanded(command: Callable[..., Result], interrupted: str = "interrupted") -> Callable[..., Result]:
    """The command in the form for typer; every dataclass parameter becomes its fields.

    A text that is not UTF-8 ends it with `typer.BadParameter`. Ctrl-C that the command leaves to it ends it
    with 130, and a sentence.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        hint = hints[name]
        if is_dataclass(hint):
            assert isinstance(hint, type)
            groups[name] = hint
            parameters += _options(hint)
        else:
            parameters.append(parameter.replace(annotation=hint))
    names = {parameter.name: _name(parameter) for parameter in parameters if _is_text(parameter)}
    keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]

    @wraps(command)
    def run(**given: Any) -> Result:
        for parameter, name in names.items():
            for text in _texts(given.get(parameter)):
                if not is_utf8(text):
                    raise typer.BadParameter(f"{name} is not UTF-8")
        filled = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        try:
            return command(**given, **filled)
        except KeyboardInterrupt:
            tell("")  # below the terminal's ^C
            complain(interrupted)
            raise typer.Exit(ExitCode.INTERRUPTED) from None

    run.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in keywords}
    return run


def is_utf8(text: str) -> bool:
    """Whether an argument was UTF-8; other bytes arrive as surrogates (PEP 383)."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def to_bytes(text: str) -> bytes:
    """An argument as the typed bytes; its text is encoded as UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _is_text(parameter: inspect.Parameter) -> bool:
    return ANY_BYTES not in getattr(parameter.annotation, "__metadata__", ())


def _name(parameter: inspect.Parameter) -> str:
    """The option's name on the command line."""
    for info in getattr(parameter.annotation, "__metadata__", ()):
        if isinstance(info, ArgumentInfo):
            return str(info.metavar or parameter.name.upper())
        # In an annotation the first name takes the place of a default.
        if isinstance(info, ParameterInfo) and isinstance(info.default, str):
            return info.default
    return "--" + parameter.name.strip("_").replace("_", "-")


def _texts(value: object) -> list[str]:
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]


def _options(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    options = []
    for field in fields(group):
        assert field.default is not MISSING, f"{group.__name__}.{field.name} needs a default"
        options.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
        )
    return options
