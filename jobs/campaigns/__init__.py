"""Campaigns: who gets which items, the files of it, and what came of the messages."""
