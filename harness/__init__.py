"""Neutral ground: data, training loop, evaluation and records shared by every method. Imports nothing of ours."""
