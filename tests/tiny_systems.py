"""Tiny random models of the architectures and tokenizer types of the papers' systems, saved as their hub folders are.

No weights of the real ones: what is tested is that each is asked, decoded and read in its own way.
"""

from __future__ import annotations

import io
from pathlib import Path

import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    BloomTokenizerFast,
    CohereConfig,
    CohereForCausalLM,
    CohereTokenizerFast,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    M2M100Config,
    M2M100ForConditionalGeneration,
    NllbMoeConfig,
    NllbMoeForConditionalGeneration,
    NllbTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)

TEXTS = [
    "Good morning.",
    "The cat sat on the mat, and the dog slept.",
    "x",
    "In 3 weeks: 5 days of rain in Berlin.",
]
CORPUS = [
    *TEXTS,
    "Translate this from English to German:",
    "Guten Morgen.",
    "Die Katze saß auf der Matte.",
    "### Input",
]

COHERE_TURNS = (
    "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{{ m['content'] }}<|END_OF_TURN_TOKEN|>"
    "{% endfor %}{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)
LLAMA3_TURNS = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def lively(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """The model with larger random weights and sharp attention: it says something else to each prompt, no near ties."""
    generator = torch.Generator().manual_seed(seed)
    sharp = ("q_proj", "k_proj", "query_key_value", ".q.", ".k.")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                scale = 4.0 if any(part in name for part in sharp) else 1.5
                scale = 1.0 if "embed" in name or "shared" in name else scale / weight.shape[1] ** 0.5
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return model.eval()


def pieces(path: Path, **options: object) -> str:
    """A sentencepiece model trained on CORPUS."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4), model_writer=out, hard_vocab_limit=False, minloglevel=2, **options
    )
    path.write_bytes(out.getvalue())
    return str(path)


def byte_level(specials: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer, as BLOOM's, Cohere's and LLaMA-3's are."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def llama_tokenizer(folder: Path) -> LlamaTokenizer:
    """LLaMA-1's and -2's type: sentencepiece BPE with byte fallback, begin-of-text added."""
    options = {"vocab_size": 330, "model_type": "bpe", "byte_fallback": True, "character_coverage": 1.0}
    options |= {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}  # line breaks stay
    return LlamaTokenizer(pieces(folder / "pieces.model", **options), legacy=True)


def llama_config(tokenizer: object, **more: object) -> LlamaConfig:
    """Two layers, 32 wide."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **more,
    )


def llama(folder: Path) -> None:
    """LLaMA-1/2, ALMA, BigTranslate, BayLing, TIM."""
    tokenizer = llama_tokenizer(folder)
    _save(folder, lively(LlamaForCausalLM(llama_config(tokenizer))), tokenizer)


def llama3(folder: Path) -> None:
    """LLaMA-3.1-Instruct and LLaMAX3: byte-level BPE, begin-of-text by a post-processor, two end tokens."""
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    inner = byte_level(names)
    inner.post_processor = processors.TemplateProcessing(
        single=f"{names[0]} $A", special_tokens=[(names[0], 0)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=names[0],
        eos_token=names[4],
        chat_template=LLAMA3_TURNS,
        clean_up_tokenization_spaces=False,
    )
    model = lively(LlamaForCausalLM(llama_config(tokenizer, num_key_value_heads=2)))
    model.generation_config.eos_token_id = [1, 4]
    _save(folder, model, tokenizer)


def bloom_tokenizer() -> BloomTokenizerFast:
    """BLOOM's type: nothing is added to a text."""
    return BloomTokenizerFast(tokenizer_object=byte_level(["<unk>", "<s>", "</s>", "<pad>"]))


def bloom_config(tokenizer: object, **more: object) -> BloomConfig:
    """Two layers, 32 wide."""
    return BloomConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        n_layer=2,
        n_head=4,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        tie_word_embeddings=False,
        **more,
    )


def bloom(folder: Path) -> None:
    """TIM-BLOOMZ."""
    tokenizer = bloom_tokenizer()
    _save(folder, lively(BloomForCausalLM(bloom_config(tokenizer))), tokenizer)


def cohere(folder: Path) -> None:
    """Aya-23."""
    names = ["<PAD>", "<UNK>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
             "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]  # fmt: skip
    tokenizer = CohereTokenizerFast(
        tokenizer_object=byte_level(names),
        pad_token="<PAD>",
        bos_token="<BOS_TOKEN>",
        unk_token="<UNK>",
        eos_token="<|END_OF_TURN_TOKEN|>",
        chat_template=COHERE_TURNS,
    )
    config = CohereConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=5,
        logit_scale=0.5,
        tie_word_embeddings=False,
    )
    _save(folder, lively(CohereForCausalLM(config)), tokenizer)


def nllb_tokenizer(folder: Path) -> NllbTokenizer:
    """NLLB's type: sentencepiece, and a token for each FLORES-200 language."""
    return NllbTokenizer(pieces(folder / "pieces.model", vocab_size=120, model_type="bpe"))


_NLLB = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 256,
         "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}  # fmt: skip


def nllb(folder: Path) -> None:
    """NLLB-200-3.3B: an M2M100."""
    tokenizer = nllb_tokenizer(folder)
    model = M2M100ForConditionalGeneration(M2M100Config(vocab_size=len(tokenizer), **_NLLB))
    _save(folder, _few_words_are_languages(lively(model), tokenizer), tokenizer)


def nllb_moe(folder: Path) -> None:
    """NLLB-200-54B: every second layer a mixture of experts, none of them ever full."""
    tokenizer = nllb_tokenizer(folder)
    config = NllbMoeConfig(
        vocab_size=len(tokenizer),
        num_experts=4,
        expert_capacity=64,
        encoder_sparse_step=2,
        decoder_sparse_step=2,
        moe_eval_capacity_token_fraction=1.0,
        **_NLLB,
    )
    model = lively(NllbMoeForConditionalGeneration(config))
    _save(folder, _few_words_are_languages(model, tokenizer), tokenizer)


def _few_words_are_languages(model: PreTrainedModel, tokenizer: NllbTokenizer) -> PreTrainedModel:
    """Language tokens, two thirds of this small vocabulary, made unlikely: they would be all there is to read."""
    with torch.no_grad():
        first = tokenizer.convert_tokens_to_ids("ace_Arab")
        model.get_input_embeddings().weight[first:] *= 0.3
    return model


def t5(folder: Path) -> None:
    """Aya-101: mT5's shape (gated gelu, untied output) and tokenizer type."""
    vocab = pieces(
        folder / "pieces.model", vocab_size=150, model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1
    )
    tokenizer = T5Tokenizer(vocab, extra_ids=0, legacy=True)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
    )
    _save(folder, lively(T5ForConditionalGeneration(config)), tokenizer)


def _save(folder: Path, model: PreTrainedModel, tokenizer: object) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


KINDS = {
    "llama": llama,
    "llama3": llama3,
    "bloom": bloom,
    "cohere": cohere,
    "nllb": nllb,
    "nllb_moe": nllb_moe,
    "t5": t5,
}
