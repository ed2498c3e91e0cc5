"""Line plots as SVG, written by hand: no package is needed to draw them, and a change shows in a diff."""

import math

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 56
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart by the colour-blind, too


def nice_step(largest):
    """The step of an axis that has about five."""
    raw = largest / 5
    power = 10 ** math.floor(math.log10(raw))
    return next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw)


def number(value):
    return f"{value:.3f}".rstrip("0").rstrip(".")


def plot(title, x_title, y_title, ticks, series):
    """`ticks`: the names of the places on the x axis, evenly spaced. `series`: name → a list as long, of
    (median, smallest, largest) or None. From 0 on the y axis, so that heights compare."""
    largest = max((v[2] for values in series.values() for v in values if v), default=0) or 1
    step = nice_step(largest)
    top = step * math.ceil(largest / step)

    def x(i):
        return LEFT + (WIDTH - LEFT - RIGHT) * (i + 0.5) / len(ticks)

    def y(value):
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           f'font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{title}</text>']
    for i in range(round(top / step) + 1):
        at = y(i * step)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{number(i * step)}</text>')
    for i, tick in enumerate(ticks):
        out.append(f'<text x="{x(i):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 22}" text-anchor="middle">{x_title}</text>')
    out.append(f'<text x="16" y="{(TOP + HEIGHT - BOTTOM) / 2}" text-anchor="middle" '
               f'transform="rotate(-90 16 {(TOP + HEIGHT - BOTTOM) / 2})">{y_title}</text>')
    for n, (name, values) in enumerate(series.items()):
        colour = COLOURS[n % len(COLOURS)]
        shift = (n - (len(series) - 1) / 2) * 6  # so that whiskers stand beside each other
        there = [(x(i) + shift, v) for i, v in enumerate(values) if v]
        line = " ".join(f"{at:.1f},{y(v[0]):.1f}" for at, v in there)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for at, (middle, low, high) in there:
            out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}" stroke="{colour}"/>')
            out.append(f'<circle cx="{at:.1f}" cy="{y(middle):.1f}" r="3.5" fill="{colour}"/>')
        at = LEFT + n * 170
        out.append(f'<rect x="{at}" y="{HEIGHT - 14}" width="10" height="10" fill="{colour}"/>')
        out.append(f'<text x="{at + 14}" y="{HEIGHT - 5}">{name}</text>')
    return "\n".join([*out, "</svg>", ""])
