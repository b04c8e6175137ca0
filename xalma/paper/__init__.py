"""What this repository's notebooks print and nobody else needs: tables, reports, cards."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    ladder_tables="direction_table ladder_table text_bits_table",
    differences="compared",
    paper_tables="groups_sentence stage_tests tests_sentence write_run_file write_tables",
    report=(
        "bullets change_sentence continuations examples files_of group_scores loss_sentence read_logs "
        "profile_values show training_table write_index write_log"
    ),
    tables="save_figure write_table",
)
