"""Families of styles: one file that stands for many, drawn or taken from folders, and their fine-tuning."""
