"""Source text as ruff would lay it out."""

from __future__ import annotations

import ast
import keyword
import subprocess
import sys

from hypothesis import example, given
from hypothesis import strategies as st

from archspec.layout import Code, call, fit, literal


@given(
    st.recursive(
        st.integers() | st.text() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False), st.tuples
    )
)
@example('ends in a quote"')
@example('"\\"')
@example("back\\slash\\")
@example("line\nbreak \u2028 \ud800 \U00010000")
def test_a_literal_is_its_value(value: object) -> None:
    """Whatever a value holds, its source evaluates to it and to nothing else."""
    assert ast.literal_eval(literal(value)) == value


def test_floats_are_written_as_people_write_them() -> None:
    """1e-05 is 1e-5."""
    assert [literal(x) for x in (1e-5, 2.5e-7, 0.0001, 0.75, 1e22)] == ["1e-5", "2.5e-7", "0.0001", "0.75", "1e22"]


NAME = st.from_regex("[a-z]{1,30}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))
VALUE = st.integers(0, 10**6) | st.tuples(st.integers(0, 99), st.integers(0, 99)) | NAME
CALL = st.builds(
    lambda function, args, kwargs: call(function, *args, **kwargs),
    NAME,
    st.lists(VALUE, max_size=4),
    st.dictionaries(
        NAME.map(lambda name: name + "_"), VALUE | st.builds(lambda n, v: call(n, v), NAME, VALUE), max_size=5
    ),
)
SUM = st.lists(NAME, min_size=2, max_size=8).map(lambda names: Code(" + ".join(names)))


def test_what_is_fitted_ruff_leaves_alone(tmp_path: object) -> None:
    """ruff format changes nothing in statements of every length, with a comment and without one."""
    statements: list[str] = []

    @given(CALL | SUM, st.integers(0, 3), st.booleans(), st.booleans())
    def collect(expression: Code, depth: int, applied: bool, comment: bool) -> None:
        text = f"value = {expression}" + ("(x)" if applied and "+" not in expression else "")
        head = "".join(f"{'    ' * i}if x:\n" for i in range(depth))
        statements.append(head + fit(text, 4 * depth, "(N, 96, 55, 55)" if comment else ""))

    collect()
    text = "\n".join(statements) + "\n"
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--isolated", "--diff", "-"],
        input=text,
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert len(statements) >= 50
