"""The pages' form and words: templates, the style sheet and the script, the same words in Korean and English.

Everything is read once, when the gateway starts; there is no build step. Which page is shown when, and what stands on
it, belongs in `api`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from babel.messages.pofile import read_po
from jinja2 import Environment, FileSystemLoader, StrictUndefined

Language = Literal["ko", "en"]
LANGUAGES: tuple[Language, ...] = ("ko", "en")
ROOM = Path(__file__).parent
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages load, as it is sent."""

    content: bytes
    media_type: str


def word(text: str) -> str:
    """Marks English words that stand in code and are translated where they are shown."""
    return text


class Web:
    """Renders pages. A word that has no translation comes out in English."""

    def __init__(self) -> None:
        self.assets = {
            path.name: Asset(path.read_bytes(), _TYPES[path.suffix]) for path in sorted((ROOM / "static").iterdir())
        }
        self._words = {language: read_words(language) for language in LANGUAGES}
        self._templates = {language: self._environment(language) for language in LANGUAGES}

    def render(self, template: str, language: Language, **values: Any) -> str:
        """A page in one language. Raises where the template needs a value that is not given."""
        return self._templates[language].get_template(template).render(language=language, **values)

    def say(self, language: Language, words: str) -> str:
        """English words in a language."""
        return self._words[language].get(words) or words

    def _environment(self, language: Language) -> Environment:
        environment = Environment(
            loader=FileSystemLoader(ROOM / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        environment.globals["_"] = lambda words: self.say(language, words)
        for name in environment.list_templates():
            environment.get_template(name)
        return environment


def language_of(text: str | None) -> Language:
    """The language that a name or an Accept-Language header asks for first: English where it says so, else Korean."""
    return "en" if (text or "").strip().lower().startswith("en") else "ko"


def read_words(language: Language) -> Mapping[str, str]:
    """Every translated text of a language, by its English words."""
    return {
        str(message.id): str(message.string)
        for path in sorted((ROOM / "locales" / language / "LC_MESSAGES").glob("*.po"))
        for message in read_po(BytesIO(path.read_bytes()), locale=language, abort_invalid=True)
        if message.id and message.string
    }
