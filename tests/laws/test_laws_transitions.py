"""The transition table, searched exhaustively: every path that it allows, by plans of every shape.

The search visits each node of a finite graph once. A failing assertion names a shortest path to the node: each node but
the first was found from one that was found before, so that walking back ends.
"""

from collections import deque
from itertools import product

import pytest
from builders import STAGES, T0, a_plan, a_rollout

from seatrial.errors import RefusedError
from seatrial.plan import Approval, Labels, Shadow
from seatrial.rollout import ACTIVE, FINAL, RETURNING, SERVING, TRANSITIONS, Action, Decision, State, move, state_of

GATES, SHADOW, CANARY, WIDER, LABELS, APPROVAL, PROMOTION = STAGES
#: With and without a shadow, with one step and with two.
SHAPES = [
    [GATES, *shadow, CANARY, *wider, LABELS, APPROVAL, PROMOTION]
    for shadow, wider in product(([SHADOW], []), ([WIDER], []))
]
SEGMENT = [GATES, SHADOW, CANARY, LABELS]
PLANS = [
    *(a_plan(stages=stages) for stages in SHAPES),
    a_plan(segment="commuter", stages=SEGMENT),
    a_plan(on_deadline="roll_back"),
]


class Search:
    """All nodes that can be reached by a plan: a rollout's state and stage, and which stages it has passed."""

    def __init__(self, plan):
        self.plan = plan
        start = (State.GATES, 0, False, frozenset())
        self.parents, self.edges = {start: None}, {}
        queue = deque([start])
        while queue:
            node = queue.popleft()
            self.edges[node] = list(self._after(node))
            for action, follower in self.edges[node]:
                if follower not in self.parents:
                    self.parents[follower] = (node, action)
                    queue.append(follower)

    def _after(self, node):
        state, stage, is_closed, passed = node
        deadline = None if is_closed else T0
        rollout = a_rollout(state, stage, deadline=deadline)
        for action in Action:
            try:
                after = move(rollout, self.plan, Decision(action, "searched"), now=T0)
            except RefusedError:
                continue
            now_passed = passed | {stage} if after.stage > stage or after.state is State.CHAMPION else passed
            yield action, (after.state, after.stage, after.deadline is None, now_passed)

    def path(self, node):
        """Return the words of one shortest path to `node`, for a message."""
        words = [node[0].value]
        while (parent := self.parents[node]) is not None:
            node, action = parent
            words += [f"-{action}->", node[0].value]
        return " ".join(reversed(words))

    def ends(self, node):
        """Return the states in which everything that can follow `node` may end."""
        seen, queue = {node}, deque([node])
        while queue:
            for _, follower in self.edges[queue.popleft()]:
                if follower not in seen:
                    seen.add(follower)
                    queue.append(follower)
        return {each[0] for each in seen} & FINAL


@pytest.fixture(scope="module", params=range(len(PLANS)))
def search(request):
    return Search(PLANS[request.param])


def test_the_search_is_finite_and_finds_more_than_the_way_straight_ahead(search):
    assert len(search.plan.stages) < len(search.parents) < 1_000
    assert {node[0] for node in search.parents} >= {State.ROLLING_BACK, State.ROLLED_BACK, State.REJECTED}


def test_no_path_leads_to_champion_past_a_stage_of_the_plan(search):
    last = len(search.plan.stages) - 1
    for node in search.parents:
        state, stage, _, passed = node
        if state is State.CHAMPION:
            assert (stage, passed) == (last, frozenset(range(last + 1))), search.path(node)


def test_every_plan_that_promotes_demands_labels_and_a_person_before_it(search):
    kinds = [type(stage) for stage in search.plan.stages]
    promotes = any(node[0] is State.CHAMPION for node in search.parents)
    assert promotes == (search.plan.segment is None)
    if promotes:
        assert kinds.index(Labels) < kinds.index(Approval) < len(kinds) - 1


def test_a_stage_is_entered_only_when_the_one_before_was_passed(search):
    for node in search.parents:
        _, stage, _, passed = node
        assert passed >= frozenset(range(stage)), search.path(node)


def test_no_state_that_serves_is_without_a_way_back(search):
    for node in search.parents:
        if node[0] in SERVING or node[0] is State.SHADOW:
            backs = [follower[0] for action, follower in search.edges[node] if action is Action.ROLL_BACK]
            assert backs == [State.ROLLING_BACK], search.path(node)


def test_from_a_way_back_nothing_leads_into_service_again(search):
    for node in search.parents:
        if node[0] in RETURNING:
            after = {follower[0] for _, follower in search.edges[node]}
            assert after <= RETURNING | {State.ROLLED_BACK}, search.path(node)


def test_every_state_reaches_an_end_and_an_end_is_one(search):
    for node in search.parents:
        assert search.ends(node), search.path(node)
        if node[0] in FINAL:
            assert search.edges[node] == [], search.path(node)


def test_a_person_is_always_asked_where_something_can_follow(search):
    for node in search.parents:
        if node[0] in (State.AWAITING_DECISION, State.AWAITING_APPROVAL):
            actions = {action for action, _ in search.edges[node]}
            assert actions == {Action.ADVANCE, Action.ROLL_BACK}, search.path(node)


def test_every_row_of_the_table_is_a_move_of_some_plan():
    used = {
        (node[0], action, follower[0])
        for plan in PLANS
        for node, after in Search(plan).edges.items()
        for action, follower in after
    }
    rows = {(state, action, after) for (state, action), states in TRANSITIONS.items() for after in states}
    assert used <= rows
    # Plans with an approval elsewhere use what these plans do not.
    unused = {(before.value, after.value) for before, _, after in rows - used}
    assert unused <= {
        ("gates", "awaiting approval"),
        ("shadow", "awaiting approval"),
        ("canary", "awaiting approval"),
        ("awaiting approval", "canary"),
        ("awaiting approval", "labels"),
    }


def test_only_what_holds_a_decision_point_can_come_to_serve(search):
    for node in search.parents:
        for _, follower in search.edges[node]:
            if follower[0] in SERVING and node[0] not in SERVING:
                assert node[0] in ACTIVE, search.path(node)


def test_a_shadow_that_the_plan_has_is_passed_before_anybody_is_served(search):
    shadows = [at for at, stage in enumerate(search.plan.stages) if isinstance(stage, Shadow)]
    for node in search.parents:
        if node[0] is State.CANARY and shadows:
            assert set(shadows) <= node[3], search.path(node)
            assert state_of(search.plan.stages[node[1]]) is State.CANARY
