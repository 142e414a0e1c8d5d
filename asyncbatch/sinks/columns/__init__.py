"""The columns of tables and Parquet files: their kinds, and the values that fit them."""
