import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloth_segmentation.command.pipeline import ahead, in_batches


def test_results_come_in_order() -> None:
    def slowest_first(number: int) -> int:
        time.sleep(0.02 * (3 - number % 4))
        return number * number

    with ThreadPoolExecutor(4) as pool:
        results = [(item, result.result()) for item, result in ahead(pool, slowest_first, range(12), 4)]
    assert results == [(number, number * number) for number in range(12)]


def test_no_more_is_begun_than_asked_for() -> None:
    begun = []
    with ThreadPoolExecutor(4) as pool:
        results = ahead(pool, begun.append, range(100), 3)
        for taken in range(1, 20):
            next(results)[1].result()
            assert len(begun) <= taken + 3


def test_work_goes_on_while_a_result_is_used() -> None:
    begun = threading.Event()

    def work(number: int) -> None:
        if number == 1:
            begun.set()

    with ThreadPoolExecutor(1) as pool:
        next(ahead(pool, work, range(5), 2))
        assert begun.wait(10)


def test_an_error_is_raised_where_its_result_is_asked_for() -> None:
    with ThreadPoolExecutor(2) as pool:
        results = [result for _, result in ahead(pool, lambda number: 1 / number, [1, 0, 2], 5)]
    assert results[0].result() == 1
    assert results[2].result() == 0.5
    with pytest.raises(ZeroDivisionError):
        results[1].result()


def test_batches() -> None:
    assert list(in_batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(in_batches([], 2)) == []
