"""The packaged revisions. A released one never changes again: hosts have copies of it, applied to their databases.

Each is a whole Alembic revision; :mod:`..install` copies it and fills in the lines between the two marks.
"""
