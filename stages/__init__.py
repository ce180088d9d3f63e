"""Glue: one module per DVC stage, and the ``fc7cache`` command."""
