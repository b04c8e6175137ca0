"""The command `xalma`: one file per family of commands."""
