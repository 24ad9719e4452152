"""The strings that stand below the fields of a class: Python keeps none of them, so they are read from the source."""

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator

from docs.generator.markdown import one_line


def field_docstrings(kind: type) -> dict[str, str]:
    """What the class itself says of its fields and members, in one line each; fields without a word are absent."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    return dict(_pairs(definition.body))


def _pairs(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, said in itertools.pairwise(body):
        match field, said:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, one_line(text)
            case _:
                pass
