"""Write the configuration's JSON schema and its reference page from the typed models."""

import argparse

from chronocoder.command_line import run_script
from chronocoder.config.reference import PAGE_PATH, SCHEMA_PATH, page_text, schema_text


def main() -> None:
    """Write both files, below the current directory."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
    PAGE_PATH.write_text(page_text(), encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
