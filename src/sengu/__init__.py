"""sengu runs servers as many processes and replaces them without anyone noticing.

Only names that are cheap to import live here; everything else is imported from the module
that holds it.
"""

__version__ = "0.1.0"
