"""Bytes <-> frozen dataclasses. No crypto, no files: a parser must run without keys.

``parse(b).marshal() == b`` for everything the text parsers accept; what they refuse is a
FormatError that names the object. docs/format.md is the authority.
"""
