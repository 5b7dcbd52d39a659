"""Vectors in FAISS, user profiles, and the generators that propose candidates from them."""
