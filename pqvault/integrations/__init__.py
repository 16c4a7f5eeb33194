"""Host libraries read archives through these. One optional extra each; nothing here is imported
by `import pqvault`, and each module imports its host and no other.
"""
