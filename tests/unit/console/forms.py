"""A browser without script, as far as forms go: pages are read, fields filled in, and forms sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx


@dataclass
class PageForm:
    """A form of a page."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class Page(HTMLParser):
    """What stands on a page."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.status = answer.status_code
        self.url = answer.url
        self.text = ""
        self.links: dict[str, str] = {}
        self.forms: list[PageForm] = []
        self.noted: dict[str, str] = {}
        self._form: PageForm | None = None
        self._link: str | None = None
        self._area: str | None = None
        self._select: str | None = None
        self._noted: list[str] = []
        self.feed(answer.text)

    @property
    def main(self) -> str:
        """The text, with single spaces."""
        return " ".join(self.text.split())

    def form(self, action: str) -> PageForm:
        """The form that posts to a path with this in it."""
        (found,) = [form for form in self.forms if form.method == "post" and action in form.action]
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        said = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = PageForm(said.get("action", ""), said.get("method", "get"))
            self.forms.append(self._form)
        elif tag == "a":
            self._link = said.get("href")
        if self._form is None:
            return
        name = said.get("name", "")
        kind = said.get("type", "text")
        if tag == "input" and name and (kind not in {"radio", "checkbox"} or "checked" in said):
            self._form.fields[name] = said.get("value", "on")
        elif tag == "textarea":
            self._area = name
            self._form.fields[name] = ""
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select is not None:
            if "selected" in said or self._select not in self._form.fields:
                self._form.fields[self._select] = said.get("value", "")
        elif tag == "button":
            self._form.buttons.append((name, said.get("value", "")))

    def handle_endtag(self, tag: str) -> None:
        """See HTMLParser."""
        if tag == "form":
            self._form = None
        elif tag == "textarea" and self._area is not None and self._form is not None:
            # The line break behind the tag is none of the value.
            self._form.fields[self._area] = self._form.fields[self._area].removeprefix("\n")
            self._area = None
        elif tag == "select":
            self._select = None
        elif tag == "a":
            self._link = None

    def handle_data(self, data: str) -> None:
        """See HTMLParser."""
        if self._area is not None and self._form is not None:
            self._form.fields[self._area] += data
            return
        self.text += data + " "
        if self._link is not None:
            self.links[" ".join(data.split())] = self._link


class Browser:
    """Asks for pages as somebody."""

    def __init__(self, ask: httpx.AsyncClient, **headers: str) -> None:
        self._ask = ask
        self._headers = headers

    async def open(self, path: str) -> Page:
        """A page."""
        return Page(await self._ask.get(path, headers=self._headers, follow_redirects=True))

    async def send(self, form: PageForm, **filled: Any) -> Page:
        """What a form leads to."""
        answer = await self._ask.post(
            form.action,
            data={**form.fields, **filled},
            headers={**self._headers, "Origin": str(self._ask.base_url).rstrip("/")},
            follow_redirects=True,
        )
        return Page(answer)
