"""The pages of a URL: by number, by link or cursor, and the requests that follow from records."""
