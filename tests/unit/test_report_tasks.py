"""What the report says of the ability on tasks."""

from report_stores import many_tasks

from chronocoder.report.summary import ability_sentence


def test_ability_that_is_the_same_on_all_tasks_is_one_number() -> None:
    store = many_tasks(2)
    assert "accuracy is 1.00; chance is 0.5." in ability_sentence(store.assign(accuracy=store["accuracy"] * 0 + 1))


def test_ability_names_no_task_with_a_warning_as_the_worst() -> None:
    text = ability_sentence(many_tasks(14))
    assert "accuracy lies between 0.53 (“task 12”) and 0.95; chance is 0.5." in text
    assert " Not counted is “task 13” (0.50): a warning says why its accuracy may mislead (▲ in the table of" in text
    assert text.endswith("By phenomenon, the mean over tasks lies between 0.71 (“binding” ▲) and 0.74 (“agreement”).")


def test_ability_lists_few_of_many_warnings() -> None:
    store = many_tasks(14)
    store["warnings"][5:] = "odd"
    text = ability_sentence(store)
    assert "between 0.81 (“task 4”) and 0.95" in text
    assert "Not counted are “task 5” (0.78), “task 6” (0.74), “task 7” (0.71) and 6 more: a warning says why" in text
    assert "may mislead" in text
    store["warnings"][:] = "odd"
    assert ability_sentence(store).endswith(
        "accuracy says little: a warning goes with every task (▲ in the table of tasks)."
    )
