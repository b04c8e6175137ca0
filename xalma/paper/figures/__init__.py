"""The figures of the notebooks: tidy rows in, a matplotlib Figure out."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    explore="collapse_explorer gate_explorer shares_explorer sliders tau_explorer",
    inside="attention attention_maps lora_matrices token_changes token_logps",
    published="write_figures",
    real_base="ladder_steps methods_dots",
    studies=(
        "amount_figure difference_dots eta_sweep gradient_curves module_bars probe_curves quality_figure "
        "rate_curves study_figure tau_curves tau_lines"
    ),
    training="arpo_figure direction_heatmap ladder_figure language_dots learning_curves partner_lines",
)
