"""Data that studies generate."""
