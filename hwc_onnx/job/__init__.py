"""The main job, from model to verified file: its state, its verdict, its record."""
