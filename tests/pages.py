"""What a browser would make of a report, for the tests of the three modules that write one."""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser

PAN = "4111 1111 1111 1111"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</style><style>@import url(//evil.example)</style>",
    "</title></svg><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202etxt.exe\u200b\x00\x1b[31m",
    PAN,
)
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "div", "header", "h1", "h2", "h3", "p",
    "nav", "a", "main", "section", "article", "span", "figure", "figcaption", "table", "caption",
    "thead", "tbody", "tr", "th", "td", "small", "dl", "dt", "dd", "footer",
    "svg", "desc", "rect", "line", "text", "circle", "polygon", "polyline",
}  # fmt: skip
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would build: elements with attributes, texts, and every text in one."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.texts.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def faults_of(html: str) -> list[str]:
    """Whatever in `html` could run, load, or show what must not be shown."""
    page = Page(html)
    faults = [f"<{tag}>" for tag, _ in page.elements if tag not in ALLOWED]
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name.startswith("on") or name in ("src", "xlink:href", "srcset", "action"):
                faults.append(f"{tag} {name}={value}")
            if name == "href" and not re.fullmatch(r"#part-\d+", value):
                faults.append(f"link {value}")
            if name == "style" and re.search(r"url|import|expression|<", value):
                faults.append(f"style {value}")
    faults += [
        f"{ord(c):#x}" for c in set(html) - {"\n"} if unicodedata.category(c) in ("Cc", "Cf")
    ]
    shown = [*page.texts, *(v for _, a in page.elements for n, v in a.items() if n == "aria-label")]
    faults += [text for text in shown if re.search(r"\d(?:[ -]?\d){12}", text)]
    return faults + [f"open at the end: {tag}" for tag in page.open]
