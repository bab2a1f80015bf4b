"""Probability families: draw, dice, expect. Generators only; the checks live in checks_math.py."""

import math
import random
from fractions import Fraction

from tiny_reasoning_jax.data.procedural import steps
from tiny_reasoning_jax.data.procedural.steps import Draft, create_draft

COLOURS = ("red", "blue", "green", "white")


def draw(rng: random.Random, difficulty: int) -> Draft:
    """Balls from a bag: 1 two colours, 2 three, 3 "not" and "or", 4 two alike, 5 one of each."""
    if difficulty >= 4:
        return _draw_two(rng, difficulty)
    num_colours = {1: 2, 2: 3, 3: 4}[difficulty]
    high = {1: 20, 2: 30, 3: 24}[difficulty]
    counts = dict(zip(rng.sample(COLOURS, num_colours), (rng.randint(1, high) for _ in range(4)), strict=False))
    asked = rng.sample(sorted(counts), 1)
    wording, wanted = asked[0], asked
    if difficulty == 3:
        if rng.random() < 0.5:
            wording, wanted = f"not {asked[0]}", [colour for colour in counts if colour != asked[0]]
        else:
            wanted = rng.sample(sorted(counts), 2)
            wording = " or ".join(wanted)
    bag, total_lines, total = _bag(counts)
    good = sum(counts[colour] for colour in wanted)
    lines = list(total_lines)
    if difficulty == 3 and len(wanted) == 2:
        lines += steps.add(counts[wanted[0]], counts[wanted[1]])
    elif difficulty == 3:
        lines += steps.add(total, -counts[asked[0]])
    lines += steps.reduce(good, total)
    rest = sorted(count for colour, count in counts.items() if colour not in wanted)
    canonical = f"{sorted(counts[colour] for colour in wanted)} of {rest}"
    return create_draft(canonical, _ask_chance(rng, bag, wording), lines, Fraction(good, total))


def _bag(counts: dict[str, int]) -> tuple[str, list[str], int]:
    """The balls in words, the lines that count them, how many they are."""
    shown = [f"{count} {colour}" for colour, count in counts.items()]
    sizes = list(counts.values())
    lines, total = [], sizes[0]
    for count in sizes[1:]:
        lines += steps.add(total, count)
        total += count
    return ", ".join(shown[:-1]) + f" and {shown[-1]}", lines, total


def _ask_chance(rng: random.Random, bag: str, wording: str) -> str:
    return rng.choice(
        (
            f"A bag has {bag} balls. Chance of {wording}?",
            f"{bag} balls: what is the chance of {wording}?",
            f"Find the chance of {wording} from {bag} balls.",
        )
    )


def _draw_two(rng: random.Random, difficulty: int) -> Draft:
    """Two balls without replacement: p/q of all ordered pairs."""
    num_colours, high = rng.choice(((2, 14), (3, 12), (4, 12))) if difficulty == 4 else (rng.choice((3, 4)), 9)
    sizes = [20] * num_colours
    while sum(sizes) > {4: 28, 5: 18}[difficulty]:
        sizes = [rng.randint(2, high) for _ in sizes]
    counts = dict(zip(rng.sample(COLOURS, num_colours), sizes, strict=True))
    bag, lines, total = _bag(counts)
    first, second = rng.sample(sorted(counts), 2)
    a, b = counts[first], counts[second]
    lines += steps.choose_ordered(total)
    pairs = total * (total - 1)
    kind = "both" if difficulty == 4 else rng.choice(("each", "least"))
    if kind == "both":
        wording, good = f"both {first}", a * (a - 1)
        lines += steps.choose_ordered(a)
    elif kind == "each":
        wording, good = f"one {first} and one {second}", 2 * a * b
        lines += [*steps.multiply(a, b), f"2*{a * b}={good}"]
    else:
        wording, other = f"at least one {first}", total - a
        good = pairs - other * (other - 1)
        lines += [*steps.add(total, -a), *steps.choose_ordered(other)]
        lines += steps.add(pairs, -other * (other - 1))
    lines += steps.reduce(good, pairs)
    prompt = rng.choice(
        (
            f"A bag has {bag} balls. Two are taken at once. Chance of {wording}?",
            f"Two balls are taken at once from {bag} balls. What is the chance of {wording}?",
            f"Find the chance of {wording} if two of {bag} balls are taken at once.",
        )
    )
    inner = sorted((a, b)) if kind == "each" else [a]
    rest = sorted(counts.values())
    return create_draft(f"{kind} {inner} of {rest}", prompt, lines, Fraction(good, pairs))


def dice(rng: random.Random, difficulty: int) -> Draft:
    """Dice of many sizes: 1 over or under, 2 multiples, 3 sum of two, 4 sum at least or at most, 5 first die known."""
    if difficulty == 1:
        return _over_or_under(rng)
    if difficulty == 2:
        return _multiples(rng)
    return _two_dice(rng, difficulty)


def _ask_die(rng: random.Random, sides: int, event: str) -> str:
    return rng.choice(
        (
            f"A die has {sides} sides. Chance of {event}?",
            f"A die with {sides} sides: what is the chance of {event}?",
            f"Find the chance of {event} on a die with {sides} sides.",
        )
    )


def _over_or_under(rng: random.Random) -> Draft:
    sides = rng.randint(4, 20)
    if rng.random() < 0.5:
        bound = rng.randint(1, sides - 1)
        event, good, canonical = f"a roll over {bound}", sides - bound, f"{bound + 1}..{sides} of {sides}"
        lines = [f"{sides}-{bound}={good}"]
    else:
        bound = rng.randint(2, sides)
        event, good, canonical = f"a roll under {bound}", bound - 1, f"1..{bound - 1} of {sides}"
        lines = [f"{bound}-1={good}"]
    lines += steps.reduce(good, sides)
    return create_draft(canonical, _ask_die(rng, sides, event), lines, Fraction(good, sides))


def _multiples(rng: random.Random) -> Draft:
    """A multiple of k over a bound: the outcomes are listed and counted."""
    while True:
        sides, k, bound = rng.randint(8, 60), rng.randint(2, 9), rng.randint(1, 40)
        outcomes = [n for n in range(k, sides + 1, k) if n > bound]
        if 1 <= len(outcomes) <= 9 and bound >= k:
            break
    lines = [",".join(map(str, outcomes)), f"count {len(outcomes)}", *steps.reduce(len(outcomes), sides)]
    prompt = _ask_die(rng, sides, f"a multiple of {k} over {bound}")
    return create_draft(f"{outcomes} of {sides}", prompt, lines, Fraction(len(outcomes), sides))


def _two_dice(rng: random.Random, difficulty: int) -> Draft:
    """Outcomes are listed (3) or counted row by row, as many as a person would care to (4, 5)."""
    while True:
        most = 20 if difficulty < 5 else 16
        a, b, total = rng.randint(4, most), rng.randint(4, most), rng.randint(3, 2 * most - 1)
        start = rng.randint(2, a - 1) if difficulty == 5 else 1
        event = f"a sum of {total}" if difficulty == 3 else f"a sum of at {rng.choice(('least', 'most'))} {total}"
        rows, good = _rows_of_sums(event, total, range(start, a + 1), b)
        whole = (a - start + 1) * b
        if (1 if difficulty == 3 else 2) <= len(rows) <= {3: 9, 4: 5, 5: 6}[difficulty] and good < whole:
            break
    if difficulty == 3:
        lines = [",".join(f"{i}+{low}" for i, low, _ in rows), f"count {good}"]
    else:
        lines, count = [], 0
        for i, low, high in rows:
            count += high - low + 1
            lines.append(f"{i} with {low} to {high}: {high - low + 1}, in all {count}")
    if difficulty == 5:
        lines.append(f"{a}-{start - 1}={a - start + 1}")
    lines += [*steps.multiply(a - start + 1, b), *steps.reduce(good, whole)]
    both = f"{a} and {b} sides"
    given = f" The first shows over {start - 1}." if difficulty == 5 else ""
    prompt = rng.choice(
        (
            f"Two dice have {both}.{given} Chance of {event}?",
            f"Two dice with {both}.{given} What is the chance of {event}?",
            f"Roll two dice with {both}.{given} Find the chance of {event}.",
        )
    )
    sizes = [a, b] if difficulty == 5 else sorted((a, b))
    canonical = f"{event} on {sizes} from {start}"
    return create_draft(canonical, prompt, lines, Fraction(good, whole))


def _rows_of_sums(event: str, total: int, firsts: range, sides: int) -> tuple[list[tuple[int, int, int]], int]:
    """Every first roll with the least and the greatest second one that make the event, and how many pairs."""
    rows = []
    for i in firsts:
        low = 1 if "most" in event else max(1, total - i)
        high = sides if "least" in event else min(sides, total - i)
        if low <= high:
            rows.append((i, low, high))
    return rows, sum(high - low + 1 for _, low, high in rows)


def expect(rng: random.Random, difficulty: int) -> Draft:
    """Mean values: 1 three tickets, 2 counted tickets, 3 win or lose, 4 with a price, 5 many rounds."""
    if difficulty == 1:
        values = [rng.randint(1, 12) for _ in range(3)]
        canonical, tickets, total, count = str(sorted(values)), ",".join(map(str, values)), sum(values), 3
        lines = [*steps.add(values[0], values[1]), *steps.add(values[0] + values[1], values[2])]
    elif difficulty == 2:
        low, high = sorted(rng.sample(range(1, 40), 2))
        few, many = rng.randint(2, 9), rng.randint(2, 9)
        total, count = few * low + many * high, few + many
        canonical, tickets = f"{few}*{low}+{many}*{high}", f"{few} of {low} and {many} of {high}"
        lines = [*steps.multiply(few, low), *steps.multiply(many, high)]
        lines += [*steps.add(few * low, many * high), *steps.add(few, many)]
    else:
        return _game(rng, difficulty)
    prompt = rng.choice(
        (
            f"Tickets: {tickets}. Find the mean.",
            f"A bag has tickets {tickets}. What is the mean?",
            f"What is the mean of tickets {tickets}?",
        )
    )
    return create_draft(canonical, prompt, lines + steps.reduce(total, count), Fraction(total, count))


def _game(rng: random.Random, difficulty: int) -> Draft:
    """A game with two prizes and their chances; a round may cost something and several may be played."""
    count = rng.randint(3, 9 if difficulty > 3 else 12)
    good = rng.choice([n for n in range(1, count) if math.gcd(n, count) == 1])
    wins, losses = {3: ((11, 60), (11, 60)), 4: ((2, 40), (1, 12)), 5: ((2, 20), (1, 9))}[difficulty]
    win, lose = rng.randint(*wins), rng.randint(*losses)
    gain = good * win - (count - good) * lose
    lines = [
        *steps.multiply(good, win),
        f"{count}-{good}={count - good}",
        *steps.multiply(count - good, lose),
    ]
    lines += steps.add(good * win, -(count - good) * lose)
    mean = Fraction(gain, count)
    lines += steps.reduce(gain, count)
    game = f"You win {win} with chance {good}/{count} and else lose {lose}."
    canonical = f"{win},{lose},{good}/{count}"
    question = "the mean gain"
    if difficulty >= 4:
        price = rng.randint(1, 9)
        top = mean.numerator - price * mean.denominator
        lines += steps.multiply(price, mean.denominator) if mean.denominator > 1 else []
        lines += [*steps.add(mean.numerator, -price * mean.denominator), *steps.reduce(top, mean.denominator)]
        mean -= price
        game += f" A round costs {price}."
        canonical += f",{price}"
    if difficulty == 5:
        rounds, players = rng.randint(3, 9), rng.randint(11, 60)
        lines += steps.multiply(mean.numerator, rounds)
        if mean.denominator > 1:
            lines += steps.reduce(mean.numerator * rounds, mean.denominator)
        mean *= rounds
        game += f" There are {players} players."
        canonical += f",{rounds}"
        question = f"the mean gain of one player in {rounds} rounds"
    prompt = rng.choice((f"{game} Find {question}.", f"{game} What is {question}?", f"Find {question}. {game}"))
    return create_draft(canonical, prompt, lines, mean)
