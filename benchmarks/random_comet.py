"""COMET checkpoints with random weights, laid out as on the hub: to test and time scoring without a download.

The library's own classes make and read them; only the weights, the sizes and the wordpieces (learnt
from the text to be scored) are not those of a released checkpoint. Their scores mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from comet.models import str2model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import XLMRobertaConfig, XLMRobertaTokenizerFast, XLMRobertaXLConfig

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # in XLM-R's order, ids 0 to 4
# As in the released checkpoints: COMET-22, CometKiwi-22, XCOMET-XL. Sides are part of the first two.
KINDS: dict[str, dict[str, Any]] = {
    "regression_metric": {
        "encoder_model": "XLM-RoBERTa",
        "layer_transformation": "sparsemax",
        "layer_norm": False,
    },
    "referenceless_regression_metric": {"encoder_model": "XLM-RoBERTa", "layer_norm": True},
    "unified_metric": {
        "encoder_model": "XLM-RoBERTa",
        "input_segments": ["mt", "src"],
        "word_level_training": True,
    },
    "xcomet_metric": {"encoder_model": "XLM-RoBERTa-XL", "error_labels": ["minor", "major", "critical"]},
}


def write_encoder(
    folder: str | Path,
    texts: Sequence[str],
    *,
    vocab: int = 2000,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 2,
    positions: int = 514,
    spread: float = 0.02,
    xl: bool = False,
) -> Path:
    """Configuration and tokenizer of an XLM-R in `folder`; wordpieces learnt from `texts`.

    spread: standard deviation of its weights, 0.02 as in XLM-R.
    """
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False, max_piece_length=8
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    wrapped = XLMRobertaTokenizerFast(tokenizer_object=tokenizer, model_max_length=positions - 2)
    config = (XLMRobertaXLConfig if xl else XLMRobertaConfig)(
        vocab_size=len(wrapped),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=positions,
        initializer_range=spread,
        type_vocab_size=1,
    )
    wrapped.save_pretrained(folder)
    config.save_pretrained(folder)
    return Path(folder)


def write_checkpoint(
    folder: str | Path, kind: str, encoder: str | Path, seed: int = 0, **values: Any
) -> Path:
    """A checkpoint of `kind` (a key of `KINDS`) over the encoder in a folder; returns its model.ckpt.

    values: other arguments of the library's class, such as `hidden_sizes`, `layer_norm`, `input_segments`.
    """
    torch.manual_seed(seed)
    arguments = KINDS[kind] | {"pretrained_model": str(encoder), "load_pretrained_weights": False} | values
    model = str2model[kind](**arguments)
    path = Path(folder) / "checkpoints" / "model.ckpt"
    path.parent.mkdir(parents=True)
    hyperparameters = dict(model.hparams)
    torch.save(
        {
            "state_dict": model.state_dict(),
            "hyper_parameters": hyperparameters,
            "pytorch-lightning_version": "2.0.0",
        },
        path,
    )
    (Path(folder) / "hparams.yaml").write_text(yaml.safe_dump({"class_identifier": kind}), encoding="utf-8")
    return path
