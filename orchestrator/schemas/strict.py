"""How the documents are declared: typed dictionaries whose keys are all known."""

from __future__ import annotations

from typing import Final

from pydantic import ConfigDict, with_config

SCHEMA: Final = 1
"""Version of every document."""

strict = with_config(ConfigDict(extra="forbid", use_attribute_docstrings=True))
"""Decorates a document: other keys are an error, and the text under a key is its description."""
