"""The page on how the numbers were made, and how to cite them."""

from typing import Any

from chronocoder.report.inputs import ReportInputs
from chronocoder.report.site import Site


def method_page(inputs: ReportInputs, site: Site) -> dict[str, Any]:
    """Return what the page shows."""
    return {}
