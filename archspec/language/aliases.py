"""Names that PyTorch, Keras and Caffe give to what the language calls otherwise, for better suggestions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from archspec.language.source import did_you_mean, listed

_NOT_YET = "it is not in the language yet"

# By name in lower case without underscores: what to write instead.
_OPS = {
    **dict.fromkeys(("dense", "fc", "fullyconnected", "innerproduct", "affine"), "write `op: linear`"),
    **dict.fromkeys(("conv", "convolution", "convolution2d"), "write `op: conv2d`"),
    **dict.fromkeys(
        ("depthwiseconv2d", "depthwiseconv"), "write `op: conv2d` with `groups` equal to its input channels"
    ),
    **dict.fromkeys(("maxpool", "maxpooling2d", "maxpooling"), "write `op: max_pool2d`"),
    **dict.fromkeys(("avgpool", "averagepooling2d", "averagepool2d", "meanpool"), "write `op: avg_pool2d`"),
    **dict.fromkeys(
        ("globalavgpool2d", "globalaveragepooling2d", "globalavgpool", "gap"),
        "write `op: adaptive_avg_pool2d` with `output_size: 1`",
    ),
    **dict.fromkeys(("lrn", "responsenorm", "crossmaplrn2d"), "write `op: local_response_norm`"),
    **dict.fromkeys(("concatenate", "cat"), "write `op: concat`"),
    **dict.fromkeys(("eltwise", "sum", "plus"), "write `op: add`"),
    **dict.fromkeys(("slice", "chunk"), "write `op: split`"),
    **dict.fromkeys(("reshape", "view"), "write `op: flatten`"),
    **dict.fromkeys(("batchnorm", "batchnormalization", "bn", "batchnorm1d"), "write `op: batch_norm2d`"),
    **dict.fromkeys(("pad", "pad2d", "zeropadding2d", "constantpad2d"), "write `op: zero_pad2d`"),
    **dict.fromkeys(("multiply", "product"), "write `op: mul`"),
    **dict.fromkeys(("shuffle", "channelshuffle2d", "shufflechannel"), "write `op: channel_shuffle`"),
    **dict.fromkeys(("rectifier", "activation"), "write `op: relu`"),
    "swish": "write `op: silu`",
    **dict.fromkeys(("droppath", "survivalprobability"), "write `op: stochastic_depth`"),
    **dict.fromkeys(("layernormalization", "layernorm2d"), "write `op: layer_norm`"),
    **dict.fromkeys(("hardsilu", "hswish"), "write `op: hardswish`"),
    **dict.fromkeys(
        ("conv2dtranspose", "convtranspose", "deconv", "deconvolution", "deconv2d", "upconv", "transposedconv2d"),
        "write `op: conv_transpose2d`",
    ),
    **dict.fromkeys(("upsampling2d", "upsampling", "resize", "interpolate"), "write `op: upsample`"),
    **dict.fromkeys(("windowattention", "swinattention"), "write `op: shifted_window_attention`"),
    **dict.fromkeys(("patchmerging", "pixelunshuffle"), "write `op: space_to_depth`, whose order is another"),
    **dict.fromkeys(("crop", "cropping2d"), "write `op: center_crop`, which reads two layers"),
    **dict.fromkeys(("attention", "selfattention", "mha", "msa"), "write `op: multihead_attention`"),
    **dict.fromkeys(
        ("scaleddotproductattention", "sdpa", "crossattention"), "write `op: dot_product_attention`, of three layers"
    ),
    **dict.fromkeys(("clstoken", "cls"), "write `op: class_token`"),
    **dict.fromkeys(("posembed", "posembedding", "positionalembedding"), "write `op: position_embedding`"),
    **dict.fromkeys(("patchify", "patches", "sequence"), "write `op: tokens`"),
    **dict.fromkeys(("unflatten", "untokenize"), "write `op: maps`"),
    **dict.fromkeys(("permute", "swapaxes"), "write `op: transpose`, of tokens"),
    **dict.fromkeys(("globalaveragepooling1d", "gap1d"), "write `op: mean`"),
    "hsigmoid": "write `op: hardsigmoid`",
    **dict.fromkeys(("identity", "noop"), "leave it out: other layers can read the one above"),
    **dict.fromkeys(
        ("separableconv2d", "separableconv"),
        "write two layers: a conv2d with `groups` equal to its input channels, and a conv2d of kernel_size 1",
    ),
    **dict.fromkeys(
        "instancenorm instancenorm2d prelu selu convtranspose2d upsample upsampling2d embedding lstm gru".split(),
        _NOT_YET,
    ),
}

# By key, for layers.
_LAYER_KEYS = {
    **dict.fromkeys(("in_channels", "in_features", "input_shape", "input_dim"), "it is inferred: leave it out"),
    **dict.fromkeys(("activation", "act"), "add a layer after it, such as {name: relu1, op: relu}"),
    **dict.fromkeys(("filters", "num_output", "channels", "num_filter"), "write `out_channels`"),
    **dict.fromkeys(("units", "num_hidden"), "write `out_features`"),
    **dict.fromkeys(("rate", "dropout_ratio", "prob", "keep_prob"), "write `p`, the probability of a drop"),
    **dict.fromkeys(("pool_size", "kernel", "ksize", "kernel_shape"), "write `kernel_size`"),
    **dict.fromkeys(("strides",), "write `stride`"),
    **dict.fromkeys(("pad", "pads"), "write `padding`"),
    "padding_mode": "padding is with zeros only: leave it out",
    "inplace": "it does not change the network: leave it out",
    **dict.fromkeys(("group", "num_group"), "write `groups`"),
    **dict.fromkeys(("dilation_rate", "dilations"), "write `dilation`"),
    **dict.fromkeys(("use_bias", "bias_term", "no_bias"), "write `bias: true` or `bias: false`"),
    **dict.fromkeys(("kernel_initializer", "bias_initializer", "weight_filler", "bias_filler"), "write `init`"),
    **dict.fromkeys(("inputs", "input", "bottom", "reads"), "write `from`"),
    **dict.fromkeys(("type", "layer", "kind"), "write `op`"),
    **dict.fromkeys(("depth_radius", "local_size"), "write `size`: the number of channels in the window"),
}

_TRAINING_KEYS = {
    **dict.fromkeys(
        ("lr", "learning_rate", "momentum", "weight_decay", "nesterov", "betas"),
        "it belongs to the optimizer: optimizer: {sgd: {lr: 0.01, momentum: 0.9}}",
    ),
    **dict.fromkeys(
        ("gamma", "step_size", "milestones", "warmup"), "it belongs to the schedule: schedule: {step: ...}"
    ),
    **dict.fromkeys(("batch", "batchsize"), "write `batch_size`"),
    **dict.fromkeys(("scheduler", "lr_scheduler"), "write `schedule`"),
    **dict.fromkeys(("transforms", "transform"), "write `preprocessing`, `augmentation` or `evaluation`"),
}

_RULES = {
    **dict.fromkeys(("he_normal", "msra"), "write `kaiming_normal`"),
    "he_uniform": "write `kaiming_uniform`",
    **dict.fromkeys(("glorot_uniform", "xavier"), "write `xavier_uniform`"),
    "glorot_normal": "write `xavier_normal`",
    **dict.fromkeys(("random_normal", "gaussian"), "write {normal: {std: 0.01}}"),
    "random_uniform": "write {uniform: {a: -0.1, b: 0.1}}",
}
_TRANSFORMS = {
    **dict.fromkeys(("to_tensor", "totensor", "toimage", "to_image"), "write `rescale`"),
}
_OPTIMIZERS = {
    "torch_sgd": "it is called `sgd`, and the paper's rule `caffe_sgd`",
    **dict.fromkeys(("momentum", "nesterov"), "write {sgd: {lr: 0.01, momentum: 0.9}}"),
    **dict.fromkeys(("rmsprop", "lamb", "adagrad", "lion"), _NOT_YET),
}


def op_hint(name: object, ops: Iterable[str]) -> str:
    """Return a hint for an unknown op, such as `; write `op: linear``."""
    plain = re.sub(r"[\W_]", "", str(name)[:64]).lower()
    same = [op for op in ops if op.replace("_", "") == plain]
    if same:
        return f"; write `op: {same[0]}`"
    if plain in _OPS:
        return f"; {_OPS[plain]}"
    return did_you_mean(name, ops) or f"; there are {listed(ops)}"


def choice_hint(tag: str, name: object, choices: Iterable[str]) -> str:
    """Return a hint for an unknown optimizer, schedule, transform or initializer."""
    aliases = {"optimizer": _OPTIMIZERS, "rule": _RULES, "transform": _TRANSFORMS}.get(tag, {})
    hint = aliases.get(str(name)[:64].lower(), "")
    if hint and (not hint.startswith("write `") or _first_word(hint) in choices):
        return f"; {hint}"
    return did_you_mean(str(name)[:64].lower(), choices) or f"; there are {', '.join(choices)}"


def key_hint(key: object, section: str, keys: Iterable[str], present: Collection[str]) -> str:
    """Return a hint for an unknown key of a layer (`layers`), of `training`, or of another section.

    A key that is `present` already is never suggested.
    """
    aliases = {"layers": _LAYER_KEYS, "training": _TRAINING_KEYS}.get(section, {})
    hint = aliases.get(str(key)[:64], "")
    keys = list(keys)
    if hint and (not hint.startswith("write `") or _first_word(hint) in keys):
        return f"; {hint}"
    absent = [name for name in keys if name not in present]
    return did_you_mean(key, absent) or f"; it has {listed(keys) or 'none'}"


def _first_word(hint: str) -> str:
    """Return `x` of a hint "write `x`"."""
    return hint.removeprefix("write `").partition("`")[0]
