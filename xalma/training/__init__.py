"""The six stages and all that runs them: trainer, checkpoints, processes, costs."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    ladder=(
        "continue_test evaluate_stage few_shot_rows for_each_group ladder_records "
        "newest_stage partner_gain run_chain translate_test"
    ),
    plan="flops_per_token plan_text",
    stages=(
        "stage0_backbone stage1_monolingual_base stage2_monolingual_modules "
        "stage3_pseudo_monolingual stage4_sft stage5_arpo"
    ),
    trainer="train",
)
