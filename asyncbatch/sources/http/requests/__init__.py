"""The requests for pages: method, body, templates, cursors, and conditions."""
