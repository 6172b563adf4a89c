"""When a process has been at its task for too long."""

from math import inf

from zmqbroker.worker.limits import InHand, Limits

TASK = InHand(began=100.0, deadline=102.0, attempt_id=b"attempt", name="task 7 (key)")
ENDLESS = TASK._replace(deadline=inf)


def test_a_process_is_killed_when_its_task_is_past_its_deadline_and_the_grace():
    limits = Limits(grace=3.0)
    assert limits.due_at(TASK) == 105.0
    assert limits.verdict(TASK, 104.9) is None
    verdict = limits.verdict(TASK, 105.0)
    assert verdict is not None
    assert verdict.what == "is still at task 7 (key) after 5.0 s, 3.0 s past its deadline: killed"
    assert verdict.reason == ""  # the client has read `timed out`


def test_a_task_without_a_deadline_may_take_any_time():
    assert Limits().due_at(ENDLESS) == inf
    assert Limits().verdict(ENDLESS, 1e9) is None


def test_a_limit_of_its_own_counts_from_the_beginning_and_is_told():
    limits = Limits(grace=3.0, kill_after=1.5)
    for task in (TASK, ENDLESS):
        assert limits.due_at(task) == 101.5
        assert limits.verdict(task, 101.4) is None
        verdict = limits.verdict(task, 101.5)
        assert verdict is not None
        assert verdict.reason == "killed after 1.5 s"
        assert verdict.what == "is still at task 7 (key): killed after 1.5 s"


def test_the_deadline_counts_where_it_comes_first():
    limits = Limits(grace=3.0, kill_after=60.0)
    verdict = limits.verdict(TASK, 105.0)
    assert verdict is not None
    assert verdict.reason == ""


def test_touches_do_not_move_a_limit_of_its_own():
    limits = Limits(grace=3.0, kill_after=60.0)
    assert limits.due_at(TASK._replace(deadline=1000.0)) == 160.0


def test_no_task_that_begins_after_a_look_is_due_before_the_next_one():
    for limits in (Limits(grace=3.0), Limits(3.0, 1.5), Limits(0.2, 60.0)):
        looked_at = 100.0
        at_once = InHand(began=looked_at, deadline=looked_at, attempt_id=b"attempt")
        assert limits.due_at(at_once) >= looked_at + limits.interval
    assert Limits(grace=0.0).interval > 0.0
