"""What a figure came from, as a short text: the code that was run, without its prose."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any


def source_of(code: Path | Callable[..., Any]) -> str:
    """A file or a function without comments and docstrings: prose may change, figures stay."""
    text = code.read_text(encoding="utf-8") if isinstance(code, Path) else inspect.getsource(code)
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            described = ast.get_docstring(node) is not None
            node.body = (node.body[1:] or [ast.Pass()]) if described else node.body
    return ast.dump(tree)


def fingerprint(*codes: Path | Callable[..., Any]) -> str:
    """Ten hexadecimal digits of the code of files and functions."""
    made = hashlib.sha256()
    for code in codes:
        made.update(source_of(code).encode())
    return made.hexdigest()[:10]
