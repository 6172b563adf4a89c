"""The comparison as plots, for which matplotlib is needed (the extra `bench`)."""

from pathlib import Path
from typing import Any

from bench.report import Results, number, ordered

OURS, OTHERS = "#c44e52", "#8c9bb0"
REDS = (6, 7)  # among the colours of the others; ours are red
FORMATS = ("png", "svg")


def draw(results: Results, names: list[str], directory: Path) -> str:
    """Draw all plots into a directory; return why not, empty when they are there."""
    try:
        import matplotlib
    except ImportError:
        return "matplotlib is not installed"
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9})
    rows = ordered(results["systems"], names)
    if rows:
        draw_rates(rows, directory)
        draw_latencies(rows, directory)
    return ""


def draw_rates(rows: list[dict[str, Any]], directory: Path) -> None:
    """Draw a bar for each system's rate, with small and with large bodies."""
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, 2, sharey=True, figsize=(10, 0.32 * len(rows) + 1.2), layout="constrained")
    titles = [row["title"] for row in rows]
    for axes, key, title in zip(both, ("rate", "large_rate"), ("64-byte bodies", "64-KiB bodies"), strict=True):
        values = [row[key] for row in rows]
        lower = [row[key] - min(row[f"{key}s"]) for row in rows]
        upper = [max(row[f"{key}s"]) - row[key] for row in rows]
        bars = axes.barh(titles, values, color=[_color(row) for row in rows], xerr=(lower, upper), ecolor="#333")
        axes.bar_label(bars, [number(value) for value in values], padding=4)
        axes.set_xscale("log")
        axes.set_xlim(max(1, min(values) / 2), max(values) * 4)
        axes.set_title(title)
        axes.set_xlabel("tasks/s (logarithmic)")
        axes.spines[["top", "right"]].set_visible(False)
    both[0].invert_yaxis()
    _save(figure, directory / "peers-rates")


def draw_latencies(rows: list[dict[str, Any]], directory: Path) -> None:
    """Draw which share of the round trips took how long, of each system."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 5.2), layout="constrained")
    styles = ("-", "--", ":")
    colors = [pyplot.get_cmap("tab20")(number) for number in range(20) if number not in REDS]
    by_median = sorted(rows, key=lambda row: row["percentiles"][50])
    for place, row in enumerate(by_median):
        color = _color(row) if _is_ours(row) else colors[place % len(colors)]
        width = 2.4 if _is_ours(row) else 1.3
        axes.plot(row["percentiles"], range(101), styles[place % 3], color=color, linewidth=width, label=row["title"])
    axes.set_xscale("log")
    axes.set_xlabel("round trip with one task outstanding, us (logarithmic)")
    axes.set_ylabel("% of the tasks are back by then")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    _save(figure, directory / "peers-latencies")


def _is_ours(row: dict[str, Any]) -> bool:
    return str(row["title"]).startswith("zmqbroker")


def _color(row: dict[str, Any]) -> str:
    return OURS if _is_ours(row) else OTHERS


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    for kind in FORMATS:
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(path.with_suffix(f".{kind}"), dpi=120, metadata=metadata)
    pyplot.close(figure)
