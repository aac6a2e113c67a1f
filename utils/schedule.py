"""The learning rate over a run, as a function of the step: a resumed run needs no state for it."""

import math


def learning_rate(step: int, *, steps: int, peak: float, shape: str, warmup: int = 0, power: float = 0.9) -> float:
    """Learning rate of step ``step``, 0 to steps - 1.

    Args:
        step: steps done before this one.
        steps: of the whole run.
        peak: greatest learning rate.
        shape: "constant", "cosine" (half a period, from peak to 0; Loshchilov and Hutter, arXiv 1608.03983) or
            "polynomial" (peak * (1 - progress) ** power; Chen et al., "DeepLab", arXiv 1606.00915, section 4.1.1).
        warmup: first steps, in which the rate grows linearly.
        power: exponent of the polynomial.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / (steps - warmup)
    factors: dict[str, float] = {
        "constant": 1.0,
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
        "polynomial": math.pow(1 - progress, power),
    }
    return peak * factors[shape]
