"""A LLaMA-like base, its LoRA modules, and decoding with them."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    adapters="attach_adapter gate load_adapters merge_adapter save_adapter",
    backbone="build_llama load_base save_base train_tokenizer",
    bank="load_modules ModuleBank",
    cuda_graphs="replayed WORTH_IT",
    fp8="fp8_base has_products",
    generation="generate translate",
    grouped_lora="can_pack",
    layouts="open_checkpoint PROJECTIONS",
    losses="evaluate_loss",
)
