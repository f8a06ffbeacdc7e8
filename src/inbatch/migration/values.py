"""Values of expressions in a syntax tree, as far as constants go."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from inbatch.migration.facts import Call, Epochs, Unknown

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "round": round,
    "ceil": math.ceil,
    "floor": math.floor,
    "len": len,
}
_LARGEST = 1e15  # of a product: nothing that is set here is larger
_DEPTH = 60


# Whose members are constants.
_ENUMERATIONS = {
    *(
        "BatchSamplers",
        "MultiDatasetBatchSamplers",
        "SiameseDistanceMetric",
        "TripletDistanceMetric",
    ),
    *("SimilarityFunction", "BatchHardTripletLossDistanceFunction", "SchedulerType"),
    *("IntervalStrategy", "OptimizerNames", "TaskType", "util"),
}
_ROWS_OF = {
    *("select", "shuffle", "train_test_split", "map", "filter", "rename_column", "rename_columns"),
    *("select_columns", "remove_columns", "flatten", "with_format", "sort"),
}


class Values:
    """Names that a script binds to constants, also by argparse and in classes; the last binding counts."""

    def __init__(self, tree: ast.AST) -> None:
        self._bound: dict[str, list[ast.expr]] = {}
        self._parsed: dict[str, ast.expr] = {}  # defaults of add_argument
        self._imported: set[str] = set()
        self._place: dict[
            str, int
        ] = {}  # of names that are being looked up: the binding that is read
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.stmt | ast.expr)]
        for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
            self._bind(node)

    def attributes(self, name: str) -> list[Any]:
        """What an attribute of this name is set to, of whatever object."""
        found = [key for key in self._bound if key.endswith(f".{name}")]
        return [self._bound_to(key, 0) for key in found]

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._assign(node.target, node.value)
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.Assign | ast.AnnAssign) and part.value is not None:
                    targets = part.targets if isinstance(part, ast.Assign) else [part.target]
                    for target in targets:
                        if isinstance(target, ast.Name):
                            name = f"{node.name}.{target.id}"
                            self._bound.setdefault(name, []).append(part.value)
        elif isinstance(node, ast.FunctionDef):
            plain = node.args.posonlyargs + node.args.args
            for argument, default in zip(
                plain[len(plain) - len(node.args.defaults) :], node.args.defaults
            ):
                self._bound.setdefault(argument.arg, [default])
        elif isinstance(node, ast.ImportFrom):
            self._imported |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and _name(node.func).endswith("add_argument"):
            self._add_argument(node)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._bound.setdefault(target.id, []).append(value)
        elif isinstance(target, ast.Attribute):
            self._bound.setdefault(ast.unparse(target), []).append(value)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, each in zip(target.elts, value.elts):
                self._assign(one, each)

    def _add_argument(self, node: ast.Call) -> None:
        default = next((word.value for word in node.keywords if word.arg == "default"), None)
        names = [
            a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
        ]
        if default is not None and names:
            self._parsed[max(names, key=len).lstrip("-").replace("-", "_")] = default

    def of(self, node: ast.expr | None, depth: int = 0) -> Any:
        """The value of an expression: constants, lists, mappings and calls of them; else `Unknown`."""
        if node is None or depth > _DEPTH:
            return Unknown("..." if node is None else _shown(node))
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            if node.id not in self._bound and node.id in self._imported:
                return node.id
            return self._bound_to(node.id, depth)
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return [self.of(each, depth + 1) for each in node.elts]
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values)
            return {
                str(self.of(key, depth + 1)): self.of(value, depth + 1)
                for key, value in pairs
                if key
            }
        return self._compound(node, depth)

    def _compound(self, node: ast.expr, depth: int) -> Any:
        if isinstance(node, ast.Attribute):
            return self._attribute(node, depth)
        if isinstance(node, ast.Subscript):
            return self._item(node, depth)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self.of(node.operand, depth + 1)
            return -value if isinstance(value, int | float) else Unknown(_shown(node))
        if isinstance(node, ast.BinOp):
            return self._operation(node, depth)
        if isinstance(node, ast.Call):
            return self._call(node, depth)
        if isinstance(node, ast.IfExp):
            chosen = self.of(node.test, depth + 1)
            if not isinstance(chosen, Unknown | Call):
                return self.of(node.body if chosen else node.orelse, depth + 1)
        return Unknown(_shown(node))

    def _bound_to(self, name: str, depth: int) -> Any:
        """The last binding of a name; inside of it (``rows = rows.map(...)``) the one before."""
        bound, before = self._bound.get(name, []), self._place.get(name)
        place = (len(bound) if before is None else before) - 1
        if place < 0:
            return Unknown(name)
        self._place[name] = place
        try:
            return self.of(bound[place], depth + 1)
        finally:
            if before is None:
                del self._place[name]
            else:
                self._place[name] = before

    def _attribute(self, node: ast.Attribute, depth: int) -> Any:
        whole = ast.unparse(node)
        if whole in self._bound:
            return self._bound_to(whole, depth)
        if _name(node.value).rpartition(".")[2] in _ENUMERATIONS:
            return whole
        owner = self.of(node.value, depth + 1)
        if isinstance(owner, Call) and owner.name in ("parse_args", "parse_known_args"):
            return (
                self.of(self._parsed[node.attr], depth + 1)
                if node.attr in self._parsed
                else Unknown(whole)
            )
        if (
            isinstance(owner, Call) and f"{owner.name}.{node.attr}" in self._bound
        ):  # an object of a class
            return self._bound_to(f"{owner.name}.{node.attr}", depth)
        return Unknown(whole)

    def _item(self, node: ast.Subscript, depth: int) -> Any:
        owner, key = self.of(node.value, depth + 1), self.of(node.slice, depth + 1)
        if isinstance(owner, Mapping) and str(key) in owner:
            return owner[str(key)]
        if isinstance(owner, list) and isinstance(key, int) and -len(owner) <= key < len(owner):
            return owner[key]
        if isinstance(owner, Call) and owner.name == "load_dataset" and isinstance(key, str):
            return owner._replace(options={"split": key, **owner.options})
        return Unknown(_shown(node))

    def _operation(self, node: ast.BinOp, depth: int) -> Any:
        left, right = self.of(node.left, depth + 1), self.of(node.right, depth + 1)
        if isinstance(left, Epochs) and isinstance(node.op, ast.Mult | ast.Div):
            found = _calculated(node, left.number, right)
            return Unknown(_shown(node)) if found is None else Epochs(found)
        if isinstance(right, Epochs) and isinstance(node.op, ast.Mult):
            found = _calculated(node, left, right.number)
            return Unknown(_shown(node)) if found is None else Epochs(found)
        found = _calculated(node, left, right)
        return Unknown(_shown(node)) if found is None else found

    def _call(self, node: ast.Call, depth: int) -> Any:
        name = _name(node.func).rpartition(".")[2]
        if name in _ROWS_OF and isinstance(node.func, ast.Attribute):
            inner = self.of(node.func.value, depth + 1)
            if isinstance(inner, Call) and inner.name == "load_dataset":
                return inner
        args = tuple(
            self.of(each, depth + 1) for each in node.args if not isinstance(each, ast.Starred)
        )
        if name in _FUNCTIONS:
            return _called(name, args, node)
        options = {word.arg: self.of(word.value, depth + 1) for word in node.keywords if word.arg}
        for word in node.keywords:  # TrainingArguments(**common)
            spread = self.of(word.value, depth + 1) if word.arg is None else None
            if isinstance(spread, Mapping):
                options = {**spread, **options}
        return options if name == "dict" and not args else Call(name, args, options)


def _calculated(node: ast.BinOp, left: Any, right: Any) -> float | None:
    """The result of an operation on two numbers, None where it is none or too large."""
    run = _OPERATORS.get(type(node.op))
    known = isinstance(left, int | float) and isinstance(right, int | float)
    if not known or run is None or (isinstance(node.op, ast.Div | ast.FloorDiv) and right == 0):
        return None
    found = run(left, right)
    return found if abs(found) < _LARGEST else None


def _called(name: str, args: tuple[Any, ...], node: ast.Call) -> Any:
    """Rounding of constants, and the length of a loader: an epoch."""
    value = args[0] if len(args) == 1 else None
    if name == "len":
        is_loader = isinstance(value, Call) and value.name.endswith("DataLoader")
        return Epochs(1.0) if is_loader else Unknown(_shown(node))
    if isinstance(value, Epochs):
        return value  # in steps it is rounded, which no share needs
    if isinstance(value, int | float) and abs(value) < _LARGEST:
        return _FUNCTIONS[name](value)
    return Unknown(_shown(node))


def _shown(node: ast.AST) -> str:
    return ast.unparse(node)[:80]


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"
