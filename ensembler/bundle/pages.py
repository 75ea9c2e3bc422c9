"""The pages of a server: its interface and the model card. They load nothing, from anywhere, and run no script."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .layout import CARD, open_bundle

#: Nothing is loaded, whatever a card may hold.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { border: 1px solid #ccc; padding: .3rem .6rem; text-align: left }
pre, code { background: #f4f4f4 } pre { padding: .7rem; overflow-x: auto }
@media (prefers-color-scheme: dark) {
  body { background: #16181c; color: #ddd } pre, code { background: #26292f } a { color: #8ab4f8 }
  td, th { border-color: #444 }
}
"""


def read_card(bundle: Path) -> str:
    """The model card of a bundle, its digest compared; "" where it has none.

    Raises:
        BundleError: it was altered.
    """
    files = open_bundle(bundle)
    return files.read(CARD).decode("utf-8", "replace") if CARD in files.index["files"] else ""


def card_page(card: str) -> str:
    """The model card as HTML: markup in it stays text, its front matter is a table, pictures are left out."""
    from markdown_it import MarkdownIt

    front, body = _front_matter(card)
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in front)
    return _page("Model card", f"<table>{rows}</table>\n{markdown.render(body)}")


def api_page(schema: Mapping[str, Any]) -> str:
    """What the server can be asked, from its OpenAPI description."""
    parts = [f"<h1>{html.escape(schema['info']['title'])}</h1>"]
    parts.append(f"<p>{html.escape(schema['info'].get('description', ''))}</p>")
    parts.append('<p><a href="openapi.json">openapi.json</a> · <a href="card">model card</a></p>')
    for path, methods in schema["paths"].items():
        for method, about in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(about.get('summary', ''))}</p>")
            kinds = about.get("requestBody", {}).get("content", {})
            if kinds:
                parts.append(f"<p>Takes {html.escape(', '.join(kinds))}.</p>")
                parts.append(f"<pre>{html.escape(_EXAMPLES)}</pre>")
            rows = "".join(
                f"<tr><td>{html.escape(str(status))}</td><td>{html.escape(answer['description'])}</td></tr>"
                for status, answer in about.get("responses", {}).items()
            )
            parts.append(f"<table><tr><th>status</th><th></th></tr>{rows}</table>")
    return _page(schema["info"]["title"], "\n".join(parts))


_EXAMPLES = """curl -F files=@a.jpg -F files=@b.jpg http://127.0.0.1:8000/predict
curl -H 'Content-Type: image/jpeg' --data-binary @a.jpg http://127.0.0.1:8000/predict
curl -H 'Content-Type: application/json' -d '{"images": ["<base64>"]}' http://127.0.0.1:8000/predict
curl -H 'Authorization: Bearer TOKEN' ...            (where the server was given a token)"""


def _front_matter(card: str) -> tuple[list[tuple[str, str]], str]:
    """Key and value of each plain line between the two `---`, and what follows."""
    found = re.match(r"---\n(.*?)\n---\n(.*)", card, re.DOTALL)
    if not found:
        return [], card
    pairs = [line.partition(":") for line in found[1].splitlines() if re.match(r"[\w-]+:\s*\S", line)]
    return [(key.strip(), value.strip()) for key, _, value in pairs], found[2]


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body>{body}</body></html>\n"
    )
