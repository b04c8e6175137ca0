"""Translators behind a chat endpoint: requests, prices, and a journal of what was paid for."""
