"""Alembic's migrations of the store. They are part of the installed package."""
