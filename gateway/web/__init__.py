"""The pages' form and words: templates, the style sheet and the script, the same words in Korean and English.

Everything is read once, when the first gateway of a process starts; there is no build step. Which page is shown when,
and what stands on it, belongs in `api`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from babel.messages.pofile import read_po
from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket

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


class _CompiledOnce(BytecodeCache):
    """Templates as one language's environment compiled them, for the other one's: it is most of what a start takes."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._code:
            bucket.bytecode_from_string(self._code[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key] = bucket.bytecode_to_string()


@cache
def web() -> Web:
    """This process's pages, which nothing changes."""
    return Web()


class Web:
    """Renders pages. A word that has no translation comes out in English."""

    def __init__(self) -> None:
        self.assets = {
            path.name: Asset(path.read_bytes(), _TYPES[path.suffix]) for path in sorted((ROOM / "static").iterdir())
        }
        self._words = {language: read_words(language) for language in LANGUAGES}
        compiled = _CompiledOnce()
        self._templates = {language: self._environment(language, compiled) for language in LANGUAGES}

    def render(self, template: str, language: Language, **values: Any) -> str:
        """A page in one language. Raises where the template needs a value that is not given."""
        return self._templates[language].get_template(template).render(language=language, **values)

    def say(self, language: Language, words: str) -> str:
        """English words in a language."""
        return self._words[language].get(words) or words

    def _environment(self, language: Language, compiled: BytecodeCache) -> Environment:
        environment = Environment(
            loader=FileSystemLoader(ROOM / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            bytecode_cache=compiled,
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
