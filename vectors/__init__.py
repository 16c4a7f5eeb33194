"""Known-answer files, and what makes them. See README.md in this folder."""
