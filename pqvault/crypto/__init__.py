"""The only place that imports `cryptography`. Bytes in, bytes out; no files, no formats.

Every failure of the library becomes an error of :mod:`pqvault.errors` in
:mod:`pqvault.crypto.failures`; ``InvalidTag`` never leaves this package.
"""
