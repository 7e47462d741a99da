"""How the user's own tables are written, where their suffix does not say it."""

from typing import Literal

from pydantic import field_validator

from condpdiff.common.settings import Section


class Form(Section):
    """How a file of rows is to be read (condpdiff/common/tables.py); what is null, its suffix says."""

    header: list[str] | None = None  # column names, where no line of the file has them (as CoLA's)
    separator: str | None = None
    """One character between two columns; a space separates as many as `header` names, and the last has the rest."""
    quoting: Literal["minimal", "none"] | None = None
    """minimal: a text in double quotes may hold separators and line ends; none: a quote is a character."""
    escape: str | None = None
    """Character before one that is meant as it is: a backslash, where a quote in a text is written so."""
    encoding: str | None = None  # name of a Python codec; null: UTF-8, or what a byte order mark says

    @field_validator("separator", "escape")
    @classmethod
    def _is_a_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or value in '"\r\n'):
            raise ValueError('one character (a tab is "\\t" in double quotes)')
        return value

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        try:
            "a".encode(value or "utf-8")
        except LookupError:
            raise ValueError("a name that Python knows, such as utf-8, utf-16, cp1252, latin-1") from None
        return value
