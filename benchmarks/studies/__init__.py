"""The papers' experiments and open questions, one module a study: lierope study NAME."""
