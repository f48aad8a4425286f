"""The shell of a page: one file of HTML, style and scripts inside, the network shut by its policy.

Nothing here knows what a page is about. Data travel as inert text in script elements, which no
browser runs; style and scripts are allowed by their digests, so nothing else can run.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from importlib.resources import files

from toolkit import __version__

GENERATOR = "toolkit"


@dataclass(frozen=True)
class Section:
    """A part of a page: where links lead, its heading, its HTML (escaped by who made it)."""

    anchor: str
    title: str
    body: str


def render(
    title: str,
    lead: str,
    sections: Sequence[Section],
    scripts: Sequence[str] = (),
    blocks: Iterable[tuple[str, str]] = (),
) -> bytes:
    """Return a whole page.

    Parameters
    ----------
    title
        Plain text.
    lead
        A sentence or two of HTML below it.
    scripts
        Names of scripts of this package; they run before `blocks` are read, so that a large page
        shows itself at once.
    blocks
        (id, text) of data for them.
    """
    code = "\n".join(_resource(name) for name in scripts)
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    parts = [
        _head(title, code),
        f"<body>\n<header>\n<h1>{escape(title)}</h1>\n<p>{lead}</p>\n<nav>{links}</nav>\n</header>\n<main>\n",
    ]
    parts += [
        f'<section id="{s.anchor}">\n<h2>{escape(s.title)}</h2>\n{s.body}\n</section>\n' for s in sections
    ]
    parts.append("</main>\n")
    if code:
        parts.append(f"<script>{code}</script>\n")
    parts += [block("text/plain", name, text) + "\n" for name, text in blocks]
    parts.append("</body>\n</html>\n")
    return "".join(parts).encode()


def _head(title: str, code: str) -> str:
    """Return the head: a policy that allows this style and this code, and nothing from elsewhere."""
    style = _resource("page.css")
    allowed = _hash(code) if code else "'none'"
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(style)}; script-src {allowed}"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="generator" content="{GENERATOR} {__version__}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n'
    )


def block(kind: str, name: str, text: str) -> str:
    """Return inert data for a script; `text` must not hold ``<``."""
    if "<" in text:
        raise ValueError("text that could end its element")
    return f'<script type="{kind}" id="{name}">{text}</script>'


def is_ours(head: bytes) -> bool:
    """Tell whether a file begins as a page of ours, which may be replaced."""
    return f'<meta name="generator" content="{GENERATOR} '.encode() in head


def _resource(name: str) -> str:
    """Read a file of this package that goes into a page as it is."""
    return (files("toolkit.report") / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
