"""Compiler -> the format of its bundles."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from recipes.bundle.format import Format
from recipes.bundle.tflite import TfliteFormat
from recipes.bundle.tvm import TvmFormat

FORMATS: Mapping[str, Format] = MappingProxyType({"tflite": TfliteFormat(), "tvm": TvmFormat()})
