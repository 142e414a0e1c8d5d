"""The options of the commands: types, parsers and help texts, by command.

May import core and errors only, so that `--help` stays fast. The parsers import the rest late.
"""
