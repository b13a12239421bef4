"""``python -m mediaflow``."""

from .cli import main

main(prog_name="mediaflow")
