"""Charts as SVG in the page itself, in the page's own colours.

pygal draws; what it adds for a life on its own (styles, scripts, hidden notes) is taken out again, since the pages
forbid inline styles and scripts. Colours and type come from the style sheet.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from markupsafe import Markup

from ...errors import ConfigurationError

__all__ = ["check_chart_support", "stacked_bars"]

_SVG = "{http://www.w3.org/2000/svg}"
_DROPPED = {"defs", "desc", "script", "style", "title"}
_MOST_LABELS = 8


def check_chart_support() -> None:
    """See that pygal is there.

    Raises:
        ConfigurationError: it is not installed.
    """
    if importlib.util.find_spec("pygal") is None:
        raise ConfigurationError("The history pages need pygal: pip install 'flask-contenthub-webhook[dashboard]'.")


def stacked_bars(
    labels: Sequence[str],
    series: Mapping[str, Sequence[int]],
    *,
    described_by: str,
    width: int = 920,
    height: int = 260,
) -> Markup:
    """A bar for each label, with a part for each series; the parts have the classes ``color-0``, ``color-1``, ...

    Args:
        labels: under the bars; some are left out where they are many. They are ours, and not a stranger's.
        series: by name, a number for each label.
        described_by: the id of the element that names the chart.
        width: in the chart's own unit.
        height: in the same.
    """
    import pygal

    chart = pygal.StackedBar(
        width=width,
        height=height,
        margin=2,
        margin_right=28,
        spacing=6,
        show_legend=False,
        show_minor_x_labels=False,
        x_labels_major_every=max(1, -(-len(labels) // _MOST_LABELS)),
        show_x_guides=False,
        truncate_label=-1,
        order_min=0,
        min_scale=3,
        max_scale=6,
        range=(0, max(4, *(sum(values) for values in zip(*series.values(), strict=True)))),
        value_formatter=lambda value: f"{value:,.0f}",
        js=[],
        css=[],
        disable_xml_declaration=True,
        pretty_print=False,
    )
    chart.x_labels = list(labels)
    for name, values in series.items():
        chart.add(name, list(values))
    root = ET.fromstring(chart.render())  # noqa: S314 - drawn by pygal from numbers and labels of ours
    _strip(root, list(series))
    root.attrib.pop("id", None)
    root.attrib.update({"class": "chart", "role": "img", "aria-labelledby": described_by})
    ET.register_namespace("", _SVG[1:-1])
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - as above, and serialized by ElementTree


def _strip(root: ET.Element, names: list[str]) -> None:
    """Leave what is drawn, and a short note on every bar."""
    for parent in list(root.iter()):
        notes = {child.get("class"): child.text or "" for child in parent if child.tag == f"{_SVG}desc"}
        for child in list(parent):
            kind = str(child.tag).removeprefix(_SVG)
            is_overlay = "overlay" in child.get("class", "") or "titles" in child.get("class", "")
            if kind in _DROPPED or is_overlay:
                parent.remove(child)
        if "value" in notes and parent.get("class") == "bar":
            note = ET.SubElement(parent, f"{_SVG}title")
            note.text = f"{notes.get('x_label', '')}: {notes['value']}"
    for part in root.iter():
        part.attrib.pop("style", None)
    for series in root.iter(f"{_SVG}g"):
        words = series.get("class", "").split()
        if words and words[0] == "series":
            name = names[int(words[-1].removeprefix("color-"))]
            for note in series.iter(f"{_SVG}title"):
                note.text = f"{name}, {note.text}"
