"""Learning from preferred and rejected translations: ARPO, the other methods, and the pairs."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    arpo="arpo_loss PRESETS",
    arpo_trainer="ARPOConfig ARPOTrainer",
    method_specs="method_table METHODS",
    methods="in_order train_preference",
    packed_pairs="PairCollator sequence_logps tokenize_pair",
    pairs="build_pairs NoPairs",
)
