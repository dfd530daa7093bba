"""The words of the feasibility page by language: `fields` says what has to be said, one module a language says it."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.matrix_words.english import ENGLISH
from gateway.matrix_words.fields import Language, Words
from gateway.matrix_words.korean import KOREAN

WORDS: Mapping[Language, Words] = {"ko": KOREAN, "en": ENGLISH}
