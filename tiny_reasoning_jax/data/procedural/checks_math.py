"""Independent answers for arithmetic, algebra, geometry and probability, from the words of the prompt alone.

Nothing here is shared with the generators: expressions are evaluated exactly, equations sampled, chances
and grid points counted out. Every function takes a prompt and returns the answer; ValueError if it cannot.
"""

import ast
import itertools
import operator
import re
from fractions import Fraction

_OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: lambda base, power: base ** int(power), ast.USub: operator.neg,
}  # fmt: skip


def find(pattern: str, prompt: str) -> tuple[str, ...]:
    """The groups of a pattern in a prompt. Raises ValueError where it is not found."""
    found = re.search(pattern, prompt)
    if found is None:
        raise ValueError(f"cannot read this prompt: {prompt!r}")
    return found.groups()


def integers(text: str) -> list[int]:
    """All whole numbers of a text, with their signs."""
    return [int(number) for number in re.findall(r"-?\d+", text)]


def evaluate(expression: str, **letters: int) -> Fraction:
    """The exact value of a school expression such as 3x^2-2(y+1)."""
    text = re.sub(r"(?<=[\dxyz)])(?=[xyz(])", "*", expression).replace("^", "**")

    def walk(node: ast.AST) -> Fraction:
        if isinstance(node, ast.Constant):
            return Fraction(node.value)
        if isinstance(node, ast.Name):
            return Fraction(letters[node.id])
        if isinstance(node, ast.UnaryOp):
            return _OPERATORS[type(node.op)](walk(node.operand))
        if isinstance(node, ast.BinOp):
            return _OPERATORS[type(node.op)](walk(node.left), walk(node.right))
        raise ValueError(f"cannot evaluate {expression!r}")

    return walk(ast.parse(text, mode="eval").body)


def solve_expression(prompt: str) -> str:
    """Sums, products, fractions: the one expression of the prompt."""
    return str(evaluate(*find(r"(?:Find|is|Compute) ([-+*/\d]+)[.?]$", prompt)))


def solve_percent(prompt: str) -> str:
    """A percentage of a number, or a price after its changes, with the post or for as many lamps as are bought."""
    if " of " in prompt and "price" not in prompt:
        rate, base = find(r"(\d+)% of (\d+)[.?]", prompt)
        return str(Fraction(int(rate) * int(base), 100))
    (price,) = find(r"(?:price of|price is|price of a lamp is|lamps at|lamp costs) (\d+)", prompt)
    value = Fraction(price)
    for word, rate in re.findall(r"(rises|falls) by (\d+)%", prompt):
        value *= 1 + Fraction(int(rate) if word == "rises" else -int(rate), 100)
    if "lamp" in prompt:
        return str(value * int(find(r"(?:What do|cost of|Ann buys) (\d+)", prompt)[0]))
    (post,) = re.findall(r"\d+(?= for the post)|(?<=post costs )\d+|(?<=post at )\d+", prompt)
    return str(value + int(post))


def solve_linear(prompt: str) -> str:
    """A linear equation from the values of its two sides at x=0 and x=1."""
    left, right = find(r"([-+()\dx]+)=([-+()\dx]+)", prompt)
    at0, at1 = (evaluate(left, x=x) - evaluate(right, x=x) for x in (0, 1))
    return str(at0 / (at0 - at1))


def solve_evaluate(prompt: str) -> str:
    """An expression at given letters."""
    letters = {letter: int(value) for letter, value in re.findall(r"([xyz])=(-?\d+)", prompt)}
    return str(evaluate(*find(r"(?:Find|what is) ([^ ?]+?)[.?]?(?: |$)", prompt), **letters))


def solve_sequence(prompt: str) -> str:
    """Continues the shown terms by their differences, then reads off what is asked."""
    values = integers(find(r"((?:\d+,)+)\.\.\.", prompt)[0])
    second = values[-1] - 2 * values[-2] + values[-3]
    while len(values) < 60:
        values.append(2 * values[-1] - values[-2] + second)
    if "next" in prompt:
        return str(values[prompt.split("...")[0].count(",")])
    if "sum of the first" in prompt:
        return str(sum(values[: int(find(r"first (\d+)", prompt)[0])]))
    if "sum of terms" in prompt:
        first, last = map(int, find(r"terms (\d+) to (\d+)", prompt))
        return str(sum(values[first - 1 : last]))
    return str(values[int(find(r"term (\d+)", prompt)[0]) - 1])


def solve_system(prompt: str) -> str:
    """Two linear equations by Cramer's rule on sampled coefficients."""
    rows = []
    for left, right in re.findall(r"([-+\dxy]+)=([-+\dxy]+)", prompt):
        at0, at_x, at_y = (evaluate(left, x=x, y=y) - evaluate(right, x=x, y=y) for x, y in ((0, 0), (1, 0), (0, 1)))
        rows.append((at_x - at0, at_y - at0, -at0))
    (a, b, e), (c, d, f) = rows
    x, y = (e * d - b * f) / (a * d - b * c), (a * f - e * c) / (a * d - b * c)
    (asked,) = find(r"(?:Find|what is) (x\+y|x-y|xy|x|y)(?:[.?]| if)", prompt)
    return str({"x": x, "y": y, "x+y": x + y, "x-y": x - y, "xy": x * y}[asked])


def solve_rectangle(prompt: str) -> str:
    """Rectangles by counting cells and trying sides."""
    if "other side" in prompt:
        kind, given = find(r"(area|perimeter)(?: is)? (\d+)", prompt)
        (side,) = find(r"(?:one side|rectangle is) (\d+)", prompt)
        for other in range(1, 1000):
            if int(given) == (int(side) * other if kind == "area" else 2 * int(side) + 2 * other):
                return str(other)
        raise ValueError(f"no side fits: {prompt!r}")
    if "path" in prompt:
        a, b = map(int, find(r"garden (?:is )?(\d+) by (\d+)", prompt))
        width, cost = (int(find(p, prompt)[0]) for p in (r"path (\d+) wide", r"(?:costs|at) (\d+)"))
        return str(((a + 2 * width) * (b + 2 * width) - a * b) * cost)
    if "hole" in prompt:
        a, b = map(int, find(r"rectangle of (\d+) by (\d+)", prompt))
        c, d = map(int, find(r"hole of (\d+) by (\d+)", prompt))
        return str(sum(1 for i in range(a) for j in range(b) if i >= c or j >= d))
    a, b = map(int, find(r"(\d+) by (\d+)", prompt))
    return str(sum(1 for _ in range(a) for _ in range(b)) if "area" in prompt else a + b + a + b)


def solve_angles(prompt: str) -> str:
    """Angle sums; unknown multiples of x by trying every x."""
    if "largest" in prompt:
        terms = re.findall(r"\d*x(?:[-+]\d+)?", prompt)
        for x in range(1, 180):
            sizes = [evaluate(term, x=x) for term in terms]
            if sum(sizes) == 180:
                return str(max(sizes))
        raise ValueError(f"no x fits: {prompt!r}")
    known = integers(find(r"(?:angles|are) (\d[\d, and]*\d)", prompt)[0])
    return str(180 * (len(known) - 1) - sum(known))


def solve_points(prompt: str) -> str:
    """Distances by definition, areas of polygons by Pick's theorem on counted grid points."""
    corners = [(int(x), int(y)) for x, y in re.findall(r"\((-?\d+),(-?\d+)\)", prompt)]
    if "distance" in prompt:
        (a, b), (c, d) = corners
        square = (a - c) ** 2 + (b - d) ** 2
        return str(square if "squared" in prompt else next(n for n in range(square + 1) if n * n == square))
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))
    inside = border = 0
    xs, ys = zip(*corners, strict=True)
    for x, y in itertools.product(range(min(xs), max(xs) + 1), range(min(ys), max(ys) + 1)):
        if any(_on_edge(x, y, edge) for edge in edges):
            border += 1
        elif sum(_crosses(x, y, edge) for edge in edges) % 2:
            inside += 1
    return str(inside + Fraction(border, 2) - 1)


_Edge = tuple[tuple[int, int], tuple[int, int]]


def _on_edge(x: int, y: int, edge: _Edge) -> bool:
    (a, b), (c, d) = edge
    return (x - a) * (d - b) == (y - b) * (c - a) and min(a, c) <= x <= max(a, c) and min(b, d) <= y <= max(b, d)


def _crosses(x: int, y: int, edge: _Edge) -> bool:
    """Whether the ray from (x, y) to the right meets the edge."""
    (a, b), (c, d) = edge
    return (b > y) != (d > y) and x < a + Fraction((y - b) * (c - a), d - b)


def solve_draw(prompt: str) -> str:
    """Chances of drawn balls, counted over every ball or every ordered pair of balls."""
    counts = re.findall(r"(\d+) (red|blue|green|white)", prompt)
    bag = [colour for count, colour in counts for _ in range(int(count))]
    (event,) = find(r"hance of (.+?)(?:\?| from| if)", prompt)
    colours = re.findall(r"red|blue|green|white", event)
    if "taken" not in prompt:
        good = sum((ball in colours) != event.startswith("not") for ball in bag)
        return str(Fraction(good, len(bag)))
    if event.startswith("at least"):
        holds = [colours[0] in pair for pair in itertools.permutations(bag, 2)]
    else:
        wanted = sorted(colours * 2 if event.startswith("both") else colours)
        holds = [sorted(pair) == wanted for pair in itertools.permutations(bag, 2)]
    return str(Fraction(sum(holds), len(holds)))


def solve_dice(prompt: str) -> str:
    """Chances of rolls, counted over every outcome."""
    (event,) = find(r"hance of (.+?)(?:\?|\.| on a die)", prompt)
    (bound,) = integers(event)[-1:]
    if "Two dice" in prompt or "two dice" in prompt:
        a, b = map(int, find(r"(\d+) and (\d+) sides", prompt))
        given = find(r"shows over (\d+)", prompt)[0] if "shows" in prompt else 0
        sums = [i + j for i in range(int(given) + 1, a + 1) for j in range(1, b + 1)]
        return str(
            Fraction(
                sum(s == bound or s > bound and "least" in event or s < bound and "most" in event for s in sums),
                len(sums),
            )
        )
    rolls = range(1, int(find(r"(\d+) sides", prompt)[0]) + 1)
    if "multiple" in event:
        good = [roll for roll in rolls if roll % integers(event)[0] == 0 and roll > bound]
    else:
        good = [roll for roll in rolls if (roll > bound if "over" in event else roll < bound)]
    return str(Fraction(len(good), len(rolls)))


def solve_expect(prompt: str) -> str:
    """Means of listed or counted tickets, and mean gains of games."""
    if "You win" in prompt:
        win, p, q, lose = map(int, find(r"win (\d+) with chance (\d+)/(\d+) and else lose (\d+)", prompt))
        mean = Fraction(p * win - (q - p) * lose, q)
        mean -= int(find(r"round costs (\d+)", prompt)[0]) if "costs" in prompt else 0
        return str(mean * (int(find(r"in (\d+) rounds", prompt)[0]) if "rounds" in prompt else 1))
    counted = re.findall(r"(\d+) of (\d+)", prompt)
    tickets = [int(value) for count, value in counted for _ in range(int(count))] or integers(prompt)
    return str(Fraction(sum(tickets), len(tickets)))
