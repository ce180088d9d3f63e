"""The feature store: rows and bytes. Knows nothing of signs or networks.

This package is code; the features themselves live in ``data/features.zarr``.
"""
