from ensembler.evaluation.cost import Cost


def test_total_is_unknown_where_a_part_is():
    costs = [Cost(1.0, 10, 5.0, 0.5, 100, 7), Cost(2.0, None, 5.0, 0.25, 20, 3), Cost(0.5, 1, 2.0)]
    assert Cost.total(costs) == Cost(3.5, None, 12.0, None, None, None)
    assert Cost.total(costs[:2]) == Cost(3.0, None, 10.0, 0.75, 120, 10)
    assert Cost.total(costs[:1]) == costs[0]
