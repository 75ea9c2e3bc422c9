from ensembler.evaluation.cost import Cost

COSTS = {"a": Cost(1.0, 10, 5.0, 0.5, 100, 7), "b": Cost(2.0, None, 5.0, 0.25, 20, 3), "c": Cost(0.5, 1, 2.0)}


def test_total_is_unknown_where_a_part_is():
    assert Cost.total(COSTS, dict.fromkeys("abc", 1.0)) == Cost(3.5, None, 12.0, None, None, None)
    assert Cost.total(COSTS, dict.fromkeys("ab", 1.0)) == Cost(3.0, None, 10.0, 0.75, 120, 10)
    assert Cost.total(COSTS, {"a": 1.0}) == COSTS["a"]
    assert Cost.total(COSTS, {"a": 1.0, "d": 1.0}) == Cost()


def test_what_is_asked_seldom_costs_its_weights_all_the_same():
    assert Cost.total(COSTS, {"a": 1.0, "b": 0.3}) == Cost(1.6, None, 10.0, 0.575, 106, 10)
