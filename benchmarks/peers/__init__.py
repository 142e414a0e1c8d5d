"""Scripts that do the same job, or a part of it, with other libraries."""
