"""Measurements of lierope: speed beside its peers, and the papers' experiments."""
