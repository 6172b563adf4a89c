"""What the workers do: a function that knows neither of tasks nor of the web, called with `work --json`."""

from zmqbroker import Reject


def factors(number: int) -> list[int]:
    """Find the prime factors of a number, in a simple way that takes long for some."""
    if number < 1:
        raise Reject(f"{number} has no prime factors")
    found, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return [*found, number] if number > 1 else found
