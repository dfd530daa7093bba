"""A config.json's fields, read one by one: absent, of the right type, or a complaint that names the field.

What the fields mean together is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LARGEST = 2**48
"""No size in a configuration comes near it; what does is a mistake or an attack."""


class NotSaid(Exception):
    """A fact that the configuration does not give; the text is the reason, ready to be shown."""


class Fields:
    """The fields of one configuration, with the defaults of its class where the file leaves something out."""

    def __init__(self, config: Mapping[str, Any], *, defaults: Mapping[str, Any], where: str) -> None:
        self._config = config
        self._defaults = defaults
        self.where = where
        """What the configuration is called in complaints, e.g. `config.json`."""
        self.defaulted: set[str] = set()
        """Fields whose value came from the class's defaults."""

    def complaint(self, name: str, expected: str, got: object) -> ValueError:
        shown = repr(got)
        return ValueError(
            f"{self.where}: {name}: expected {expected}, got {shown if len(shown) <= 60 else shown[:57] + '...'}"
        )

    def get(self, *names: str) -> Any:
        """The value under the first of these names that has one; a null counts as left out."""
        for name in names:
            if (value := self._config.get(name)) is not None:
                return value
        for name in names:
            if name not in self._config and (value := self._defaults.get(name)) is not None:
                self.defaulted.add(names[0])
                return value
        return None

    def count(self, *names: str, least: int = 1, most: int = LARGEST) -> int | None:
        """A whole number, None when left out."""
        value = self.get(*names)
        if value is None:
            return None
        name = next((name for name in names if self._config.get(name) is not None), names[0])
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.complaint(name, f"a whole number, {least} or more", value)
        if not least <= value <= most:
            raise self.complaint(
                name,
                f"a whole number from {least} to {most:,}" if value > most else f"a whole number, {least} or more",
                value,
            )
        return value

    def need(self, *names: str, least: int = 1) -> int:
        """Like `count`. Raises NotSaid when it is left out."""
        value = self.count(*names, least=least)
        if value is None:
            raise NotSaid(f"{self.where} says no {names[0]}")
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.complaint(name, "true or false", value)
        return value

    def text(self, name: str) -> str | None:
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise self.complaint(name, "text", value)
        return value

    def items(self, name: str, kind: type) -> list[Any] | None:
        """A list whose members are all of `kind`."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            raise self.complaint(name, f"a list of {kind.__name__} values", value)
        return value

    def block(self, name: str) -> Mapping[str, Any] | None:
        value = self.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.complaint(name, "a mapping", value)
        return value
