"""Names that may become identifiers, labels and file names, and those that may not."""

import keyword
import re
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

# An attribute of every torch.nn.Module would be overwritten by a layer of its name (torch 2.14).
TORCH_NAMES = frozenset(
    """
    T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches eval
    extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules
    mtia named_buffers named_children named_modules named_parameters parameters register_backward_hook register_buffer
    register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule
    share_memory state_dict to to_empty train training type xpu zero_grad
    """.split()
)

# An attribute of every keras.Model (Keras 3.15).
KERAS_NAMES = frozenset(
    """
    activity_regularizer add_loss add_metric add_variable add_weight autocast build build_from_config built call
    call_signature_parameters compile compile_from_config compiled compiled_loss compiled_metrics compute_dtype
    compute_loss compute_mask compute_metrics compute_output_shape compute_output_spec count_params
    distribute_reduction_method distribute_strategy dtype dtype_policy evaluate export fit from_config
    get_build_config get_compile_config get_config get_layer get_metrics_result get_quantization_layer_structure
    get_state_tree get_weights input input_dtype input_shape input_spec inputs jit_compile layers
    load_own_variables load_weights loss losses make_predict_function make_test_function make_train_function metrics
    metrics_names metrics_variables name non_trainable_variables non_trainable_weights operations output output_names
    output_shape outputs path predict predict_function predict_on_batch predict_step quantization_mode quantize
    quantized_build quantized_call rematerialized_call reset_metrics run_eagerly save save_own_variables save_weights
    set_state_tree set_weights stateless_call stateless_compute_loss steps_per_execution summary supports_jit
    supports_masking symbolic_call test_function test_on_batch test_step to_json train_function train_on_batch
    train_step trainable trainable_variables trainable_weights unrolled_steps_per_execution variable_dtype variables
    weights
    """.split()
)

# What stands at the top of a generated file; a spec's name becomes a class there.
TEMPLATE_CLASSES = frozenset(
    """
    Any Array F LocalResponseNorm NDArray PaddedAveragePooling2D PaddedMaxPooling2D Pair ResponseNorm Sides Split
    Tensor WithinChannelResponseNorm
    """.split()
)

# What the templates themselves say inside the functions where layers' names become variables or attributes, and what
# Keras calls a model's input.
TEMPLATE_NAMES = TEMPLATE_CLASSES | frozenset(
    """
    F Tensor init initializers input_layer keras layer math model nn np num_classes ops parameter_groups
    reset_parameters self torch x
    """.split()
)

_LAYER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_SPEC = re.compile(r"[a-z][a-z0-9_]{0,39}")


def _layer_name(name: str) -> str:
    if not _LAYER.fullmatch(name):
        message = "must be letters, digits and underscores, a letter first, 32 at most"
        raise PydanticCustomError("bad-name", message)
    if name == "input":
        raise PydanticCustomError("reserved-name", "is what the network reads: call the layer something else")
    if keyword.iskeyword(name) or name in ("True", "False", "None"):
        raise PydanticCustomError("reserved-name", "is a word of Python's own: call the layer something else")
    for words, whose in (
        (TORCH_NAMES, "an attribute of every torch.nn.Module"),
        (KERAS_NAMES, "an attribute of every keras.Model"),
        (TEMPLATE_NAMES, "a word of the generated code's own"),
    ):
        if name in words:
            raise PydanticCustomError("reserved-name", f"is {whose}: call the layer something else")
    return name


def _spec_name(name: str) -> str:
    if not _SPEC.fullmatch(name):
        message = "must be lower-case letters, digits and underscores, a letter first, 40 at most"
        raise PydanticCustomError("bad-name", message)
    if keyword.iskeyword(name) or class_name(name) in TEMPLATE_CLASSES or class_name(name) in ("None", "True", "False"):
        raise PydanticCustomError("reserved-name", "is a word of the generated code's own: call the network otherwise")
    return name


def class_name(name: str) -> str:
    """Return the class that a spec's name gives: `alexnet_tiny` is AlexNetTiny, as the field writes its nets."""
    words = [word.capitalize() for word in name.split("_") if word]
    return "".join(re.sub("(?<=.)net$", "Net", word) for word in words)


def _text(text: str) -> str:
    if not text.isprintable() and any(not c.isprintable() and c != "\n" for c in text):
        raise PydanticCustomError("wrong-value", "must be text to be read: no control or invisible characters")
    return " ".join(text.split())


def _reason(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("wrong-value", "must say why")
    return _text(text)


def one_or_more(value: Any, what: str) -> list[str]:
    """Return a name, or a list of them, as a list; `what` the names are of is for the message."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise PydanticCustomError("wrong-value", f"must be the name of {what}, or a list of them")
    return names


def tagged(value: Any, tag: str, example: str, field: str = "value") -> Any:
    """Return a choice as written, `zeros` or `{normal: {std: 0.01}}`, as a model's fields with the choice in `tag`.

    What is no mapping, as in `{constant: 0.1}`, is the value of `field`.
    """
    if isinstance(value, str):
        return {tag: value}
    if isinstance(value, dict) and len(value) == 1:
        ((choice, fields),) = value.items()
        if isinstance(fields, dict) and tag in fields:
            raise PydanticCustomError("wrong-value", f"must not have a key '{tag}': that is the word before it")
        if not isinstance(fields, dict):
            fields = {} if fields is None else {field: fields}
        return {**fields, tag: choice}
    raise PydanticCustomError("wrong-value", f"must be {'an' if tag[0] in 'aeio' else 'a'} {tag} such as {example}")


def _matching(pattern: re.Pattern[str], what: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern.pattern}$", "description": what})


LayerName = Annotated[str, AfterValidator(_layer_name), _matching(_LAYER, "what other layers and claims call it")]
SpecName = Annotated[str, AfterValidator(_spec_name), _matching(_SPEC, "what the network is called, and its folder")]
Reason = Annotated[str, AfterValidator(_reason), WithJsonSchema({"type": "string", "pattern": r"\S"})]
NAMES_SCHEMA: dict[str, Any] = {
    "description": "the name of a layer, or a list of them",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
}
Text = Annotated[str, AfterValidator(_text)]  # one line that is printed, and written into docstrings
