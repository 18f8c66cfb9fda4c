"""The one look of all plots: seaborn, colours that the colour-blind tell apart, readable on light and dark pages."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

from matplotlib.figure import Figure

INK = "#7a828c"  # contrast of about 4 to white and to the dark theme's background alike
PALETTE = "colorblind"
RC = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.facecolor": "none",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "axes.titlesize": "medium",
    "svg.hashsalt": "effbook",  # the same picture is the same file
}


@contextmanager
def themed() -> Iterator[None]:
    """Plots drawn inside have the book's look; the settings outside stay as they were."""
    import matplotlib as mpl
    import seaborn as sns

    with (
        mpl.rc_context(),
        sns.plotting_context("notebook", font_scale=0.9),
        sns.axes_style("whitegrid", RC),
        sns.color_palette(PALETTE),
    ):
        mpl.rcParams.update({key: value for key, value in RC.items() if key in mpl.rcParams})
        try:
            yield
            _settle_colours()
        finally:
            interactive = mpl.is_interactive()
    mpl.interactive(interactive)  # a notebook's backend, which starts at the first figure, sets it: plots then show


def _settle_colours() -> None:
    """Look up the colours of lines and texts of all open figures: "C0" is else looked up when the palette is gone."""
    from matplotlib._pylab_helpers import Gcf
    from matplotlib.colors import to_rgba
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    for manager in Gcf.get_all_fig_managers():
        for artist in manager.canvas.figure.findobj(lambda one: isinstance(one, Line2D | Text)):
            artist.set_color(to_rgba(artist.get_color()))


def html(figure: Figure, alt: str) -> str:
    """The figure as an inline SVG picture with its description for those who can't see it."""
    import matplotlib as mpl

    out = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "effbook"}):
        figure.savefig(out, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    data = base64.b64encode(out.getvalue()).decode()
    return f'<img class="eff-plot" alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'
