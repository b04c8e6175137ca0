"""The figures of the notebooks: tidy rows in, a matplotlib Figure out."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    published="write_figures",
    real_base="ladder_steps methods_dots",
    studies=(
        "amount_figure eta_sweep gradient_curves interval_bars module_bars probe_curves quality_figure rate_curves "
        "tau_curves tau_lines"
    ),
    training="arpo_figure direction_heatmap ladder_figure learning_curves tau_figure",
)
