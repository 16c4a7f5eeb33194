"""Rotation: root keys wrapped anew to other recipients, nothing else. docs/rotation.md."""
