"""Families of text tasks: WordNet's nouns, their rows, and the losses of many LoRAs under one fixed head."""
