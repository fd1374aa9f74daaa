"""A result's JSON → a picture: texts a second by work and peer.

    python -m benches.peers.plot RESULT.json OUT.png

Needs matplotlib and nothing of embellama's, so that another environment's Python can draw.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OURS_COLOR, OTHERS_COLOR = "#1b6ca8", "#9aa5b1"
FAITHFUL = 0.999


def draw(result: dict[str, Any], target: Path) -> None:
    """Draw a panel for each work: bars of the median, whiskers from slowest to fastest round."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    works = list(result["tables"])
    names = [peer["name"] for peer in result["peers"]]
    figure, panels = plt.subplots(
        1,
        len(works),
        figsize=(2.6 + 4.2 * len(works), 1.7 + 0.36 * len(names)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, work in zip(panels[0], works, strict=True):
        _panel(panel, names, result["tables"][work]["rows"])
        facts = result["works"][work]
        panel.set_title(f"{work}: {facts['n_tokens'] / facts['n_texts']:.0f} tokens a text")
    panels[0][0].invert_yaxis()
    figure.suptitle(
        f"Texts per second, {result['n_threads']} threads, median of {result['n_rounds']} rounds "
        "(whiskers: slowest to fastest)\n"
        "Hatched: mean cosine to the float32 vectors below 0.999, given beside the bar",
        fontsize=11,
    )
    figure.supxlabel(result["machine"], fontsize=8)
    figure.savefig(target, dpi=160)
    plt.close(figure)


def _panel(panel: Any, names: list[str], rows: dict[str, Any]) -> None:
    shown = [name for name in names if name in rows]
    at = [names.index(name) for name in shown]
    speeds = [rows[name]["texts_per_s"] for name in shown]
    medians = [speed["median"] for speed in speeds]
    bars = panel.barh(
        at,
        medians,
        color=[OURS_COLOR if name.startswith("embellama ") else OTHERS_COLOR for name in shown],
        xerr=[
            [speed["median"] - speed["low"] for speed in speeds],
            [speed["high"] - speed["median"] for speed in speeds],
        ],
        error_kw={"ecolor": "#222222", "elinewidth": 1, "capsize": 2},
        edgecolor="white",
        linewidth=0,
    )
    widest = max((speed["high"] for speed in speeds), default=1.0)
    for bar, name, speed in zip(bars, shown, speeds, strict=True):
        fidelity = rows[name]["fidelity"]
        label = f"{speed['median']:,.0f}" if speed["median"] >= 100 else f"{speed['median']:.1f}"
        if fidelity is not None and fidelity["mean"] < FAITHFUL:
            bar.set_hatch("///")
            label += f"  cos {fidelity['mean']:.3f}"
        middle = bar.get_y() + bar.get_height() / 2
        panel.text(speed["high"] + widest * 0.02, middle, label, va="center", fontsize=8)
    panel.set_yticks(range(len(names)), names)
    panel.set_xlim(0, widest * 1.32)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(axis="x", labelsize=8)


def main() -> None:
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
