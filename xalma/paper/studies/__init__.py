"""The experiments of notebooks 08, 09 and 11."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    ladder="budget_table few_shot_table file_ladder ladder_folder ladder_study sft_findings sft_table",
    long_form=(
        "ablations_folder ablations_plan file_ablations is_long long_folder plan "
        "read_ablations read_grpo read_long_form run_long_form"
    ),
    module_sharing="compare_sharing compare_sizes size_sets",
    over_rejection="gradient_frame pair_losses probe_frame push_table tau_frame tau_table",
    preference_methods="compare_methods preference_file read_pairs systems",
    preference_tables=(
        "difference_findings difference_table drift_table method_labels "
        "preference_findings preference_table push_findings sweep_frame switch_findings "
        "switch_table variant_labels"
    ),
    seeds="MIN_SEEDS summary",
    sft_data="compare_sft_data NEEDS sft_languages",
    stage_ablation=(
        "ablate_stages ablation_findings ablation_table CHAINS gating_records gating_table "
        "published_stages shortened"
    ),
    style=(
        "has_styles label_of rates_frame read_styles style_findings style_folder style_pairs style_probes style_study "
        "style_table styles_folder table5"
    ),
    study=("BITS file_records file_study read_study study_findings study_note study_table"),
)
