"""In which order ready jobs begin where not all can: those on single tasks last, and of these see `in_order_of_tasks`."""

for other in workflow.rules:
    other.priority = other.priority or BEFORE_TASKS
