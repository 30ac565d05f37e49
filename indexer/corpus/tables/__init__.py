"""Tables of items: CSV, JSON and Parquet files, their columns and the types of their cells."""
