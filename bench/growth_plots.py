"""What `bench.growth` has found, as plots, for which matplotlib is needed (the extra `bench`)."""

from pathlib import Path
from typing import Any

from bench.growth_report import MEGABYTE, Results, middle, size_in_words

FORMATS = ("png", "svg")
RATE, COST, RULES = "#8c9bb0", "#c44e52", "#4c72b0"
SHAPES = {"pair": ("bare PUSH/PULL", "#8c9bb0"), "task": ("tasks", "#c44e52"), "echo": ("tasks and results", "#dd8452")}


def draw(results: Results, directory: Path) -> str:
    """Draw a plot of each series into a directory; return why not, empty when they are there."""
    try:
        import matplotlib
    except ImportError:
        return "matplotlib is not installed"
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "bench", "font.size": 9})
    for name, series in results.items():
        figure = _draw_bodies(series) if name == "bodies" else _draw_costs(series)
        for kind in FORMATS:
            figure.savefig(directory / f"growth-{name}.{kind}", dpi=130, metadata=_undated(kind))
    return ""


def _undated(kind: str) -> dict[str, None]:
    """Return what keeps the date out of a file, so that equal plots are equal files."""
    return {"Date": None} if kind == "svg" else {}


def _draw_costs(series: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    costs = figure.subplots()
    rates = costs.twinx()
    points = series["points"]
    places = range(len(points))
    rates.bar(places, [middle(point, "tasks/s") for point in points], color=RATE, alpha=0.35, width=0.6)
    rates.set_ylabel("tasks/s (bars)")
    costs.plot(places, [middle(point, "processor") for point in points], "o-", color=COST, label="the broker")
    if "rules alone" in points[0]["runs"][0]:
        costs.plot(
            places, [middle(point, "rules alone") for point in points], "s--", color=RULES, label="its rules alone"
        )
    costs.set_ylabel("CPU per task, us (lines)")
    costs.set_xticks(places, [f"{point['number']:,}" for point in points])
    costs.set_xlabel(series["unit"])
    costs.set_ylim(bottom=0)
    costs.set_zorder(rates.get_zorder() + 1)
    costs.patch.set_visible(False)
    costs.legend(loc="lower left", framealpha=0.9)
    return figure


def _draw_bodies(series: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    points = series["points"]
    places = range(len(points))
    for shape, (label, color) in SHAPES.items():
        axes.plot(places, [middle(point, shape) / MEGABYTE for point in points], "o-", color=color, label=label)
    axes.set_yscale("log")
    axes.set_ylabel("MB/s of bodies (logarithmic)")
    axes.set_xticks(places, [size_in_words(point["number"]) for point in points], rotation=45)
    axes.set_xlabel("size of a body")
    axes.legend()
    return figure
