"""Names of layers and specs, which become identifiers and file names, and other texts."""

import keyword
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

# The attributes of every torch.nn.Module, which a layer of that name would replace (torch 2.14). No other name is
# reserved: generated code renames its local variables, and Keras and NumPy only use the names as strings.
TORCH_ATTRIBUTES = frozenset(
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

_LAYER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
# Letters and marks that are not seen: of Unicode's Default_Ignorable_Code_Point, if printable; and Braille's blank.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SPEC = re.compile(r"[a-z][a-z0-9_]{0,39}")


def _layer_name(name: str) -> str:
    if not _LAYER.fullmatch(name):
        message = "must be letters, digits and underscores, a letter first, at most 32"
        raise PydanticCustomError("bad-name", message)
    if name == "input":
        raise PydanticCustomError("reserved-name", "is the network's input: choose another name")
    if keyword.iskeyword(name):
        raise PydanticCustomError("reserved-name", "is a keyword of Python: choose another name")
    if name in TORCH_ATTRIBUTES:
        raise PydanticCustomError("reserved-name", "is an attribute of every torch.nn.Module: choose another name")
    return name


def _spec_name(name: str) -> str:
    if not _SPEC.fullmatch(name):
        plain = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")[:40].lstrip("0123456789_")
        hint = f", such as {plain}" if _SPEC.fullmatch(plain) else ""
        message = "must be lower-case letters, digits and underscores, a letter first, at most 40" + hint
        raise PydanticCustomError("bad-name", "{message}", {"message": message})
    if keyword.iskeyword(name) or keyword.iskeyword(class_name(name)):
        raise PydanticCustomError("reserved-name", "is a keyword of Python: choose another name")
    return name


def class_name(name: str) -> str:
    """Return the class name of a spec's name, e.g. `AlexNetTiny` for `alexnet_tiny`."""
    words = [word.capitalize() for word in name.split("_") if word]
    return "".join(re.sub(r"(?<=.)net(?=\d*$)", "Net", word) for word in words)


def _text(text: str) -> str:
    if not text.isprintable() and any(not c.isprintable() and c != "\n" for c in text):
        raise PydanticCustomError("wrong-value", "must be printable text, without control or invisible characters")
    if not text.isascii() and (_INVISIBLE.search(text) or _has_stacked_marks(text)):
        raise PydanticCustomError("wrong-value", "must be text without invisible letters or stacks of combining marks")
    return " ".join(text.split())


def _has_stacked_marks(text: str) -> bool:
    """Return whether more than four combining marks follow each other; no language writes more."""
    import unicodedata

    return "MMMMM" in "".join(unicodedata.category(c)[0] for c in text)


def _reason(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("wrong-value", "must give a reason")
    return _text(text)


def one_or_more(value: Any, what: str) -> list[str]:
    """Return a name, or a list of names, as a list; `what` they name is for the message."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise PydanticCustomError("wrong-value", f"must be the name of {what}, or a list of them")
    return names


def tagged(value: Any, tag: str, example: str, bare: Mapping[str, str]) -> Any:
    """Return a choice, e.g. `zeros` or `{normal: {std: 0.01}}`, as a model's fields with the choice in `tag`.

    `bare` has the choices whose value may be given without its field's name, as in `{constant: 0.1}`, and that field.
    """
    if isinstance(value, str):
        return {tag: value}
    if isinstance(value, dict) and len(value) == 1:
        ((choice, fields),) = value.items()
        if isinstance(fields, dict) and tag in fields:
            raise PydanticCustomError("wrong-value", f"must not have a key '{tag}': that is the key before it")
        if not isinstance(fields, dict):
            fields = {} if fields is None else {bare.get(choice, "value"): fields}
        return {**fields, tag: choice}
    hint = ": write its attributes in a mapping of their own" if isinstance(value, dict) and value else ""
    raise PydanticCustomError(
        "wrong-value", f"must be {'an' if tag[0] in 'aeio' else 'a'} {tag} such as {example}{hint}"
    )


def _matching(pattern: re.Pattern[str], what: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern.pattern}$", "description": what})


LayerName = Annotated[
    str, AfterValidator(_layer_name), _matching(_LAYER, "the layer's name, for other layers and for claims")
]
SpecName = Annotated[str, AfterValidator(_spec_name), _matching(_SPEC, "the network's name, and its folder's")]
Reason = Annotated[str, AfterValidator(_reason), WithJsonSchema({"type": "string", "pattern": r"\S"})]
NAMES_SCHEMA: dict[str, Any] = {
    "description": "the name of a layer, or a list of them",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
}
Text = Annotated[str, AfterValidator(_text)]  # one line that is printed, and written into docstrings
