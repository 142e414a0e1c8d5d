"""The way to a server: credentials, OAuth2, TLS, the origin policy, and the addresses of hosts."""
