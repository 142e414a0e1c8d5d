"""The live page: a run in the browser while it goes on, served by Server-Sent Events."""
