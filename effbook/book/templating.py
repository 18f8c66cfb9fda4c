"""The book's templates: whatever they print is escaped, unless it is markup already."""

import functools
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FOLDER = Path(__file__).parent / "templates"


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["plain"] = plain
    made.policies["json.dumps_kwargs"] = {}  # keys keep their order
    return made


def rendered(template: str, **context: object) -> Markup:
    """A template of this folder, named without its last suffix, filled in."""
    return Markup(_environment().get_template(f"{template}.jinja").render(**context))


def plain(text: str) -> Markup:
    """Text that MyST prints as it is."""
    return Markup(re.sub(r"([\\`*_{}\[\]<>#$&|~^@])", r"\\\1", text))


def raw(html: str) -> str:
    """HTML as a block that MyST hands on as it is."""
    return f"```{{raw}} html\n{html}\n```\n"
