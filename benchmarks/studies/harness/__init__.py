"""What studies share: runs, records, statistics, tables, pictures, two kinds of training."""
