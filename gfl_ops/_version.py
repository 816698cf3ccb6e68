"""The version, in the one place that the Python package, its metadata and the native core read it from."""

__version__ = "0.1.0"
