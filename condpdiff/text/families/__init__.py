"""Families of text tasks. There is none yet."""
