"""Erasing a person from all that is kept, and never taking them in again."""
