"""Writes an answer in one notation: LaTeX, Markdown and Unicode become a short ASCII-like form.

    $\\dfrac{1}{2}$ -> \\frac{1}{2}      \\left(0, 1\\right] -> (0,1]      90^{\\circ} -> 90 degree
    \\text{ cm}^2   -> cm^2             x \\leq 5 -> x ≤ 5               1{,}000 -> 1000

What it leaves is text again: the braces of a set and those of LaTeX's groups are no longer told apart.
"""

import re
from functools import lru_cache

MAX_NESTED_MACROS = 4

# One token of LaTeX or Unicode -> what is written for it. What is not listed stays.
_NAMES = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "\\frac"),
    **dict.fromkeys(("cdot", "times", "ast"), "*"),
    **dict.fromkeys(("leq", "leqslant", "le"), "≤"),
    **dict.fromkeys(("geq", "geqslant", "ge"), "≥"),
    **dict.fromkeys(("neq", "ne"), "≠"),
    **dict.fromkeys(("ldots", "dots", "cdots", "dotsc"), "…"),
    **dict.fromkeys(("emptyset", "varnothing"), "∅"),
    **dict.fromkeys(("lvert", "rvert", "vert"), "|"),
    **dict.fromkeys(("langle", "lparen"), "("),
    **dict.fromkeys(("rangle", "rparen"), ")"),
    **dict.fromkeys(("quad", "qquad"), " "),
    **dict.fromkeys(
        "left right middle big Big bigl bigr Bigl Bigr displaystyle textstyle limits rm bf it small large".split(), ""
    ),
    "lt": "<", "gt": ">", "div": "/", "pm": "±", "mp": "∓", "cup": "∪", "in": "∈", "approx": "≈", "degree": " degree",
    "circ": " degree", "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "newline": " ",
}  # fmt: skip
_SIGNS = {
    **{f"\\{sign}": sign for sign in "$%{}_#&|"},
    **dict.fromkeys(("\\!", "\\,"), ""),
    **dict.fromkeys(("\\;", "\\:", "\\ ", "\\(", "\\)", "\\[", "\\]", "\u00a0", "\u202f", "\u2009"), " "),
    **dict.fromkeys("−–—‐‑", "-"),
    **dict.fromkeys("×⋅·∗", "*"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("’‘", "'"),
    "π": "\\pi ", "°": " degree", "∞": "\\infty ", "√": "\\sqrt ", "÷": "/", "⁄": "/", "∕": "/", "²": "^2", "³": "^3",
    "½": "\\frac12 ", "⅓": "\\frac13 ", "⅔": "\\frac23 ", "¼": "\\frac14 ", "¾": "\\frac34 ", "，": ",", "：": ":",
    "（": "(", "）": ")", "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ",
}  # fmt: skip
_TOKEN = re.compile(r"\\([A-Za-z]+)|\\.|[^\x00-\x7f]", re.DOTALL)
_MATH_DOLLARS = re.compile(r"(?<!\\)\$([^$\\]*(?:\\.[^$\\]*)*)(?<!\\)\$")
_DEGREE = re.compile(r"\^\s?(?:\{\s?\\circ\s?\}|\\circ(?![A-Za-z]))")
_INFINITY = re.compile(r"(?<![\\A-Za-z])(?:infinity|infty|inf)(?![A-Za-z])", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\s?\\!\s?|\\,)(?=\d{3}(?!\d))", re.ASCII)
_MACRO = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|sf|normal)?|math(?:rm|bf|it|tt|sf|normal)|mbox|hbox|operatorname\*?|boxed|fbox|underline|bm"
    r"|boldsymbol)\s?\{([^{}]*)\}"
)
_SPACES_AROUND = re.compile(r"\s?([-+*/^=<>≤≥≠,:;(){}\[\]\\|])\s?")


@lru_cache(maxsize=4096)
def clean(text: str) -> str:
    """Returns the text in the one notation; only for bounded text, as its answers are kept for a while."""
    text = " ".join(text.split())
    if "\\begin" not in text:
        text = text.replace("\\\\", "\\")  # escaped once too often; a new row only means something in a matrix
    if not text.isascii() or "\\" in text or "$" in text or "{" in text:
        text = _THOUSANDS.sub("", _MATH_DOLLARS.sub(r" \1 ", text))
        for _ in range(MAX_NESTED_MACROS):
            text, num_replaced = _MACRO.subn(r" \1 ", text)
            if not num_replaced:
                break
        text = _TOKEN.sub(_write, _DEGREE.sub(" degree ", text))
    text = _INFINITY.sub(r"\\infty", text)
    text = " ".join(text.replace("...", "…").split()).replace(" ^", "^")
    text = text.strip("*` ").rstrip(".,;: ").strip("*` ")
    return "∅" if text in ("{}", "{ }") else text


def _write(match: re.Match) -> str:
    token, name = match.group(), match[1]
    return _SIGNS.get(token, token) if name is None else _NAMES.get(name, token)


def squeeze(text: str) -> str:
    """Returns clean text without the spaces that mean nothing, for a comparison letter by letter."""
    return _SPACES_AROUND.sub(r"\1", text)
