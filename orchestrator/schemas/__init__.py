"""The JSON documents that `--format json` prints, one module a verb.

A new key may come within version 1; a key that goes, or changes its meaning, makes version 2.
"""
