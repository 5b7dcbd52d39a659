"""From texts to vectors: cleaning, language models and a cache by content.

This room knows text, torch, sentence-transformers and the vector cache. It knows nothing of users,
time, indexes or scores. A text is cleaned (`text`), encoded once (`encoder`) and found again by its
content (`cache`):

    encoder = load_encoder("packaged/wordllama")
    cache = VectorCache(folder, fingerprint=encoder.fingerprint, dimension=encoder.dimension)
    embedded = embed_texts(item_texts(items, template="{title}"), encoder=encoder, cache=cache)
"""

from embed.cache import EmbeddedTexts, VectorCache, count_new, embed_texts, keep_only
from embed.encoder import Encoder, load_encoder
from embed.loading import EncoderError, EncoderNotFound
from embed.text import TemplateError, clean_text, item_texts, review_texts

__all__ = [
    "EmbeddedTexts",
    "Encoder",
    "EncoderError",
    "EncoderNotFound",
    "TemplateError",
    "VectorCache",
    "clean_text",
    "count_new",
    "embed_texts",
    "item_texts",
    "keep_only",
    "load_encoder",
    "review_texts",
]
