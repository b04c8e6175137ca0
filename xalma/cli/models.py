"""Commands on models: translate, convert, trim, export."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Any

from xalma.cli.options import add_set, input_lines, overrides
from xalma.cli.systems import add_options, translate_with


def add_translate(commands: Any) -> None:
    translate = commands.add_parser(
        "translate", help="translate a file or standard input, one segment per line"
    )
    translate.add_argument("--from", dest="src", required=True, metavar="LANG")
    translate.add_argument("--to", dest="tgt", required=True, metavar="LANG")
    translate.add_argument("--profile", default="tiny")
    translate.add_argument(
        "--model", help="folder of a stage or an export; default: the profile's newest stage"
    )
    translate.add_argument("--system", help="another system than ours, by its name in `xalma systems`")
    translate.add_argument("file", nargs="?", help="UTF-8 text; default: standard input")
    add_options(translate)
    add_set(translate)
    translate.set_defaults(run=_translate)


def _translate(arguments: argparse.Namespace) -> None:
    if arguments.system:
        print("\n".join(translate_with(arguments, input_lines(arguments.file))))
        return
    from xalma.languages import group_of, other_side
    from xalma.profiles import load_profile

    p = load_profile(arguments.profile, **overrides(arguments.set))
    group = group_of(other_side(arguments.src, arguments.tgt))
    texts = input_lines(arguments.file)

    from xalma.models.generation import translate
    from xalma.runtime import usable_device, usable_dtype
    from xalma.training.export.opened import is_export, open_exported
    from xalma.training.ladder import newest_stage
    from xalma.training.stage_models import open_merged

    device = usable_device(arguments.device)
    dtype = usable_dtype(arguments.dtype or "float32", device)
    folder = arguments.model or newest_stage(p, group)
    model, tokenizer = (
        open_exported(folder, group, dtype) if is_export(folder) else open_merged(folder, dtype)
    )
    outputs = translate(
        model.to(device),
        tokenizer,
        texts,
        arguments.src,
        arguments.tgt,
        prompt_style=p.prompt_style,
        beams=p.beams,
        max_new_tokens=p.max_new_tokens,
        batch_size=p.generation_batch,
        counts=(counts := Counter()),
    )
    if counts["cut"]:
        print(
            f"{counts['cut']} answers reached max_new_tokens={p.max_new_tokens} and may be cut: raise it with --set",
            file=sys.stderr,
        )
    print("\n".join(outputs))


def add_convert(commands: Any) -> None:
    convert = commands.add_parser(
        "convert", help="adapters to the all-modules checkpoint and back; a GGUF to a base"
    )
    convert.add_argument(
        "--from",
        dest="source",
        required=True,
        nargs="+",
        metavar="PATH_OR_ID",
        help="a checkpoint of either layout, adapter folders of groups, or one GGUF file",
    )
    convert.add_argument("--to", dest="out", required=True, metavar="DIR", help="a new folder")
    convert.add_argument(
        "--layout", choices=("adapters", "all-modules"), help="default: the one it is not in"
    )
    convert.add_argument(
        "--base", help="folder or hub id of the adapters' base, where they do not lead to it"
    )
    convert.add_argument("--groups", help="default: all eight")
    convert.add_argument("--max-shard-size", default="5GB")
    convert.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> None:
    if arguments.source[0].endswith(".gguf"):
        from xalma.models.bases.gguf_files import convert_gguf

        if len(arguments.source) > 1 or arguments.layout or arguments.base or arguments.groups:
            raise ValueError(
                "a GGUF file is converted alone, into a base: give --from FILE.gguf and --to DIR only"
            )
        print(convert_gguf(arguments.source[0], arguments.out))
        return
    from xalma.languages import parse_groups
    from xalma.models.safetensors_io import parse_size

    limit = parse_size(arguments.max_shard_size)
    groups = parse_groups(arguments.groups) if arguments.groups else None

    from xalma.models.convert import convert
    from xalma.models.layouts import open_checkpoint

    source = arguments.source[0] if len(arguments.source) == 1 else arguments.source
    checkpoint = open_checkpoint(source, arguments.base)
    print(
        f"{checkpoint.layout}: groups {checkpoint.groups}, rank {checkpoint.rank}, {checkpoint.nbytes / 1e9:.2f} GB"
    )
    print(convert(checkpoint, arguments.out, arguments.layout, groups, limit))


def add_trim(commands: Any) -> None:
    trim = commands.add_parser("trim", help="a base with the vocabulary that texts use, and the way back")
    trim.add_argument(
        "--from", dest="source", required=True, metavar="BASE", help="a folder, a hub id or a name"
    )
    trim.add_argument("--to", dest="out", required=True, metavar="DIR", help="a new folder")
    trim.add_argument(
        "--texts", nargs="+", default=[], metavar="FILE", help="one text a line; a .gz is read, too"
    )
    trim.add_argument(
        "--limit", type=int, default=0, help="most tokens, the frequent ones; default: all that are used"
    )
    trim.add_argument(
        "--restore", metavar="BASE", help="the whole base: give the model in --from its vocabulary back"
    )
    trim.set_defaults(run=_trim)


def _trim(arguments: argparse.Namespace) -> None:
    from xalma.models.bases.vocabulary import TextFiles, restore_base, trim_base

    if bool(arguments.texts) == bool(arguments.restore):
        raise ValueError("give --texts FILE… to trim a base, or --restore BASE to bring one back")
    if arguments.restore:
        print(restore_base(arguments.source, arguments.restore, arguments.out))
    else:
        print(trim_base(arguments.source, TextFiles(arguments.texts), arguments.out, arguments.limit))


def add_export(commands: Any) -> None:
    export = commands.add_parser("export", help="a merged model or adapter with a model card, checked first")
    export.add_argument("--profile", default="tiny")
    export.add_argument("--group", type=int, required=True, help="language group whose module is exported")
    export.add_argument("--to", dest="out", required=True, metavar="DIR", help="a new folder")
    export.add_argument("--what", choices=("merged", "adapter"), default="merged")
    export.add_argument("--model", help="folder of a stage; default: the newest stage of the profile")
    export.add_argument("--base-id", default="", help="hub id of the base, for the card and the adapter")
    export.add_argument(
        "--with-base", action="store_true", help="write the adapter's base beside it, as DIR/base"
    )
    export.add_argument(
        "--gguf", action="store_true", help="write DIR/model.gguf too, for llama.cpp and Ollama"
    )
    export.add_argument(
        "--sentences", type=int, default=200, help="how many are compared before anything is written"
    )
    export.add_argument("--licence", default="other", help="the hub's identifier of a licence")
    add_set(export)
    export.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> None:
    from xalma.profiles import load_profile

    p = load_profile(arguments.profile, **overrides(arguments.set))

    from xalma.languages import adapter_name
    from xalma.training.export.export import describe, export

    adapter_name(arguments.group)  # raises where there is no such group
    print(describe(p, arguments.group, arguments.sentences), flush=True)
    folder = export(
        p,
        arguments.group,
        arguments.out,
        what=arguments.what,
        folder=arguments.model,
        base_id=arguments.base_id,
        licence=arguments.licence,
        sentences=arguments.sentences,
        with_base=arguments.with_base,
        gguf=arguments.gguf,
    )
    print(folder)
