"""The small changes that mutation testing makes to a file of Python."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

_COMPARISONS: dict[type[ast.cmpop], tuple[str, ...]] = {
    ast.Lt: ("<=", ">="),
    ast.LtE: ("<", ">"),
    ast.Gt: (">=", "<="),
    ast.GtE: (">", "<"),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
}
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.Pow: "*",
    ast.LShift: ">>",
    ast.RShift: "<<",
    ast.BitAnd: "|",
    ast.BitOr: "&",
    ast.BitXor: "|",
}


@dataclass(frozen=True)
class Mutant:
    """A change of one place in a file: the text at `begin` to `end` becomes `text`."""

    path: Path
    whole: str
    line: int
    begin: int
    end: int
    text: str

    def source(self) -> str:
        """The whole file, changed."""
        return self.whole[: self.begin] + self.text + self.whole[self.end :]

    def __str__(self) -> str:
        before = " ".join(self.whole[self.begin : self.end].split())
        return f"{self.line}: {before[:90]}  ->  {self.text[:90]}"


class Mutator(ast.NodeVisitor):
    """Finds all mutants of a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.text = path, path.read_text()
        self.found: list[Mutant] = []
        self._lines = [0]
        for line in self.text.encode().splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        assert self.text.isascii(), "offsets are bytes"
        self.visit(ast.parse(self.text))

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        begin = self._lines[node.lineno - 1] + node.col_offset
        return begin, self._lines[node.end_lineno - 1] + node.end_col_offset

    def _of(self, node: ast.expr | ast.stmt) -> str:
        begin, end = self._span(node)
        return self.text[begin:end]

    def _add(self, node: ast.expr | ast.stmt, *texts: str) -> None:
        begin, end = self._span(node)
        self.found += [
            Mutant(self.path, self.text, node.lineno, begin, end, text) for text in texts
        ]

    def generic_visit(self, node: ast.AST) -> None:
        """Everything but annotations and docstrings."""
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self.visit(child)

    def visit_Expr(self, node: ast.Expr) -> None:
        """A call for its effect is left out; a docstring is none."""
        if not isinstance(node.value, ast.Constant):
            self._add(node, "pass")
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """A change of something that outlives the function is left out."""
        named = [t.id for t in node.targets if isinstance(t, ast.Name)]
        if any(name.startswith("__") for name in named):
            return
        if any(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets):
            self._add(node, "pass")
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Left out, or with the opposite operator."""
        target, value = self._of(node.target), self._of(node.value)
        self._add(node, "pass", f"{target} {_OPERATORS[type(node.op)]}= {value}")
        self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        """Left out; what it says is for people."""
        self._add(node, "pass")

    def visit_Delete(self, node: ast.Delete) -> None:
        """Left out."""
        self._add(node, "pass")

    def visit_Continue(self, node: ast.Continue) -> None:
        """Left out."""
        self._add(node, "pass")

    def visit_Break(self, node: ast.Break) -> None:
        """Left out."""
        self._add(node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        """Nothing comes back."""
        if node.value is None:
            self._add(node, "pass")
        elif not isinstance(node.value, ast.Constant) or node.value.value is not None:
            self._add(node, "return None")
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        """The condition is turned round."""
        if self._of(node.test) == "TYPE_CHECKING":
            return
        self._add(node.test, f"not ({self._of(node.test)})")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """The condition is turned round."""
        self._add(node.test, f"not ({self._of(node.test)})")
        self.generic_visit(node)

    def visit_match_case(self, node: ast.match_case) -> None:
        """A guard is left out; what a pattern is made of stays."""
        if node.guard is not None:
            self._add(node.guard, "True")
            self.visit(node.guard)
        for statement in node.body:
            self.visit(statement)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Each comparison by its neighbours: the bound moves, or the sense."""
        operands = [node.left, *node.comparators]
        for at, operator in enumerate(node.ops):
            begin, end = self._span(operands[at])[1], self._span(operands[at + 1])[0]
            # Parentheses belong to the operands.
            gap = self.text[begin:end]
            left, right = gap.count(")"), gap.count("(")
            for text in _COMPARISONS[type(operator)]:
                new = f"{')' * left} {text} {'(' * right}"
                self.found.append(Mutant(self.path, self.text, node.lineno, begin, end, new))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """And for or; and each part left out."""
        word = " or " if isinstance(node.op, ast.And) else " and "
        parts = [f"({self._of(value)})" for value in node.values]
        self._add(node, f"({word.join(parts)})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """A negation is left out."""
        if isinstance(node.op, ast.Not):
            self._add(node, f"({self._of(node.operand)})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Another operator; texts and types stay."""
        if isinstance(node.op, ast.BitOr) and isinstance(node.right, (ast.Name, ast.Constant)):
            return
        left, right = self._of(node.left), self._of(node.right)
        self._add(node, f"(({left}) {_OPERATORS[type(node.op)]} ({right}))")
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """For people."""

    def visit_keyword(self, node: ast.keyword) -> None:
        """Hints are for people."""
        if node.arg != "hint":
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Numbers by their neighbours, booleans turned round, bytes by others."""
        match node.value:
            case bool():
                self._add(node, str(not node.value))
            case int() | float():
                self._add(node, f"({node.value} + 1)")
            case bytes() if node.value:
                self._add(node, repr(bytes([node.value[0] ^ 1]) + node.value[1:]))
