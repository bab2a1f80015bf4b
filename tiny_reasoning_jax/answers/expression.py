"""Reads a mathematical expression, in LaTeX or as one types it, into a tree of tuples.

Nodes, by their first element:
  ("number", Fraction)   ("variable", name)   ("constant", "pi" | "e" | "i" | "degree")
  ("sum", nodes)   ("negative", node)   ("product", nodes)   ("over", top, bottom, is_bar)   ("power", base, exponent)
  ("root", degree, node)   ("log", base, node)   ("function", name, node)   ("factorial", node)   ("choose", n, k)

It refuses whatever it does not know for sure, words above all; then the answer stays text. Nothing is evaluated here
and nothing is ever given to an interpreter. Work and depth are bounded.
"""

import re
from fractions import Fraction
from functools import lru_cache

MAX_DEPTH = 40  # brackets, exponents and fractions in each other
MAX_NODES = 400
_MAX_DIGITS = 640  # what every setting of the interpreter can read
_MAX_SLASHES = 8  # a / b / c / ... nests

FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh exp abs floor ceil ln sqrt log lg".split()
)
_GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell".split()
)
_TYPED_GREEK = _GREEK - {"mu", "nu", "xi"}  # without their backslash these are products
_CONSTANTS = {"pi": "pi", "degree": "degree", "degrees": "degree", "deg": "degree", "e": "e", "i": "i"}
# Two and three letters in a row are a product of variables, unless they are one of these.
_WORDS = frozenset(
    "a an and any are as at be but by can do each for from has if in is it its mod no nor not of off on or out per set "
    "so the to too via was we yes you all am pm gcd lcm max min det lim sup inf arg re im or int sum odd even one two "
    "six ten his her she he him who why how now new old day".split()
)
_NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+)?", re.ASCII)
_REPEATING = re.compile(r"\\(?:overline|bar)\s?\{?(\d{1,30})\}?", re.ASCII)
_LETTERS = re.compile(r"[A-Za-z]+")
_SUBSCRIPT = re.compile(r"_(?:\{([A-Za-z0-9,+\- ]{1,20})\}|([A-Za-z0-9]))", re.ASCII)
_ARGUMENT = re.compile(r"\([^()]{1,40}\)")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_CLOSING = {"(": ")", "[": "]", "{": "}", "|": "|"}
_EXPONENT = re.compile(r"[eE][+-]?\d", re.ASCII)
_SCORE = re.compile(r"\d+(?:-\d+)+", re.ASCII)  # a score, a date, a telephone number


class Unreadable(Exception):
    """The text is no expression that this grammar knows."""


@lru_cache(maxsize=4096)
def read(text: str) -> tuple | None:
    """Returns the tree of clean text, None where it is no expression."""
    if not text or _SCORE.fullmatch(text):
        return None
    try:
        reader = _Reader(text)
        tree = reader.read_sum()
        reader.skip_spaces()
        return tree if reader.at == len(text) else None
    except Unreadable:
        return None


def _is_digit(char: str) -> bool:
    return char.isascii() and char.isdigit()


class _Reader:
    """Recursive descent over the text itself: what a digit belongs to depends on what stands before it."""

    def __init__(self, text: str):
        self.text, self.at, self.depth, self.num_nodes, self.open_bars = text, 0, 0, 0, 0

    def skip_spaces(self) -> None:
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1

    def peek(self) -> str:
        self.skip_spaces()
        return self.text[self.at : self.at + 1]

    def take(self, token: str) -> bool:
        self.skip_spaces()
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def match(self, pattern: re.Pattern) -> re.Match | None:
        match = pattern.match(self.text, self.at)
        if match is None or not match.group():
            return None
        self.at = match.end()
        return match

    def node(self, *parts) -> tuple:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise Unreadable
        return parts

    def deepen(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable

    def read_sum(self) -> tuple:
        self.deepen()
        terms = [self.read_product()]
        while self.peek() and self.peek() in "+-":
            negative = self.take("-") or not self.take("+")
            term = self.read_product()
            terms.append(self.node("negative", term) if negative else term)
        self.depth -= 1
        return terms[0] if len(terms) == 1 else self.node("sum", tuple(terms))

    def read_product(self) -> tuple:
        tree, factors, num_slashes = self.read_signed(), [], 0
        while True:
            if self.text.startswith("**", self.at):
                raise Unreadable
            if self.take("*"):
                factors.append(tree)
                tree = self.read_signed()
            elif num_slashes < _MAX_SLASHES and self.take("/"):
                num_slashes += 1
                top = self.node("product", (*factors, tree)) if factors else tree
                factors, tree = [], self.node("over", top, self.read_signed(), False)
            elif self.starts_factor():
                factors.append(tree)
                tree = self.read_power()
            else:
                break
        return self.node("product", (*factors, tree)) if factors else tree

    def starts_factor(self) -> bool:
        """Whether a factor follows without a sign for multiplication. A number only follows what is no number."""
        char = self.peek()
        if _is_digit(char) or char == ".":
            before = self.text[self.at - 1 : self.at]
            return before in (")", "}", "]") or before == " " and not self.text[: self.at].rstrip()[-1:].isdigit()
        return char.isascii() and char.isalpha() or char in ("(", "[", "{", "\\") or char == "|" and not self.open_bars

    def read_signed(self) -> tuple:
        negative = False
        while self.peek() and self.peek() in "+-":
            negative ^= self.take("-") or not self.take("+")
        tree = self.read_power()
        return self.node("negative", tree) if negative else tree

    def read_power(self) -> tuple:
        tree = self.read_atom()
        if self.take("!"):
            tree = self.node("factorial", tree)
        if self.take("^") or self.take("**"):
            tree = self.node("power", tree, self.read_exponent())
        return tree

    def read_exponent(self) -> tuple:
        self.deepen()
        negative = self.take("-")
        tree = self.read_power()
        self.depth -= 1
        return self.node("negative", tree) if negative else tree

    def read_atom(self) -> tuple:
        char = self.peek()
        if _is_digit(char) or char == ".":
            return self.read_number()
        if char == "\\":
            return self.read_command()
        if char and char in _CLOSING:
            return self.read_group()
        if letters := _LETTERS.match(self.text, self.at):
            return self.read_letters(letters.group())
        raise Unreadable

    def read_group(self) -> tuple:
        opening = self.peek()
        self.take(opening)
        outer_bars, self.open_bars = self.open_bars, int(opening == "|")
        tree = self.read_sum()
        self.open_bars = outer_bars
        if not self.take(_CLOSING[opening]):
            raise Unreadable
        return self.node("function", "abs", tree) if opening == "|" else tree

    def read_number(self) -> tuple:
        digits = self.match(_NUMBER)
        if digits is None or len(digits.group()) > _MAX_DIGITS:
            raise Unreadable
        plain = digits.group().replace(",", "")
        value = Fraction(plain)
        if "." in plain or self.text.startswith(".\\", self.at):
            self.take(".")
            if repeating := self.match(_REPEATING):
                num_digits, num_decimals = len(repeating[1]), len(plain.partition(".")[2])
                value += Fraction(int(repeating[1]), (10**num_digits - 1) * 10**num_decimals)
        if _EXPONENT.match(self.text, self.at):  # 1e5 is neither 100,000 nor 5 times e
            raise Unreadable
        return self.read_mixed(value) if value.denominator == 1 else self.node("number", value)

    def read_mixed(self, whole: Fraction) -> tuple:
        """A whole number just before a proper fraction of numbers is a mixed number."""
        self.skip_spaces()
        start = self.at
        if self.text.startswith("\\frac", start):
            self.take("\\frac")
            top, bottom = self.read_argument(), self.read_argument()
            if top[0] == bottom[0] == "number" and 0 < top[1] < bottom[1]:
                return self.node("number", whole + top[1] / bottom[1])
            self.at = start
        return self.node("number", whole)

    def read_argument(self) -> tuple:
        """What a command of LaTeX takes: a group, one digit, one letter or a command."""
        char = self.peek()
        if _is_digit(char):
            self.at += 1
            return self.node("number", Fraction(int(char)))
        if char == "{":
            return self.read_group()
        if char == "\\":
            return self.read_command()
        if char.isascii() and char.isalpha():
            self.at += 1
            return self.name(char)
        raise Unreadable

    def read_letters(self, letters: str) -> tuple:
        if letters in FUNCTIONS:
            self.at += len(letters)
            return self.read_function(letters)
        if letters in _CONSTANTS or len(letters) == 1 or letters in _TYPED_GREEK:
            self.at += len(letters)
            return self.name(letters)
        inside_run = self.text[self.at - 1 : self.at].isalpha()
        if len(letters) > 3 or letters.lower() in _WORDS and not inside_run:
            raise Unreadable
        self.at += 1
        return self.name(letters[0])

    def name(self, name: str) -> tuple:
        """A variable with its subscript and primes, or a constant."""
        subscript = self.match(_SUBSCRIPT)
        if subscript:
            name = f"{name}_{(subscript[1] or subscript[2]).replace(' ', '')}"
        while self.text.startswith("'", self.at):
            self.at += 1
            name += "'"
        if self.text[self.at : self.at + 1].isdigit():  # x2: an index or a product
            raise Unreadable
        if name in ("f", "g", "h") and (argument := self.match(_ARGUMENT)):  # a function of somebody's, not a product
            name += argument.group().replace(" ", "")
        return self.node("constant", _CONSTANTS[name]) if name in _CONSTANTS else self.node("variable", name)

    def read_command(self) -> tuple:
        self.deepen()
        tree = self.read_named(self.match(_COMMAND))
        self.depth -= 1
        return tree

    def read_named(self, command: re.Match | None) -> tuple:
        name = command[1] if command else ""
        if name == "frac":
            return self.node("over", self.read_argument(), self.read_argument(), True)
        if name in ("binom", "dbinom", "tbinom"):
            return self.node("choose", self.read_argument(), self.read_argument())
        if name in ("lfloor", "lceil"):
            tree = self.read_sum()
            if not self.take("\\rfloor" if name == "lfloor" else "\\rceil"):
                raise Unreadable
            return self.node("function", name[1:], tree)
        if name in FUNCTIONS:
            return self.read_function(name)
        if name == "pi":
            return self.node("constant", "pi")
        if name in _GREEK:
            return self.name(name)
        raise Unreadable

    def read_function(self, name: str) -> tuple:
        self.deepen()
        degree = base = exponent = None
        if name == "sqrt" and self.take("["):
            degree = self.read_sum()
            if not self.take("]"):
                raise Unreadable
        if name == "log" and self.take("_"):
            base = self.read_argument() if not _is_digit(self.peek()) else self.read_number()
        if name != "sqrt" and self.take("^"):
            exponent = self.read_exponent()
        tree = self.read_operand(name)
        self.depth -= 1
        if exponent == ("negative", ("number", Fraction(1))) and name in ("sin", "cos", "tan"):
            name, exponent = f"arc{name}", None
        if name == "sqrt":
            tree = self.node("root", degree or ("number", Fraction(2)), tree)
        elif name in ("log", "lg", "ln"):
            tree = self.node("log", ("constant", "e") if name == "ln" else base or ("number", Fraction(10)), tree)
        else:
            tree = self.node("function", name, tree)
        return tree if exponent is None else self.node("power", tree, exponent)

    def read_operand(self, function: str) -> tuple:
        """sqrt takes one thing, sin takes all factors up to the next sign or function: sin 2x, but sin x cos x."""
        if self.peek() in ("(", "{", "["):
            return self.read_group()
        if function == "sqrt":
            return self.read_atom()
        factors = [self.read_power()]
        while self.starts_factor() and not self.at_function():
            factors.append(self.read_power())
        return factors[0] if len(factors) == 1 else self.node("product", tuple(factors))

    def at_function(self) -> bool:
        command = re.compile(r"\\?([A-Za-z]+)").match(self.text, self.at)
        return command is not None and command[1] in FUNCTIONS - {"sqrt"}
