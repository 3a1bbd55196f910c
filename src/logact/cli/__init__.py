"""The command line: parse, call, print. What it does, the library does too."""
