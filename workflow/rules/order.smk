"""In which order ready jobs begin where not all can: those on single tasks last, and of these see `in_order_of_tasks`."""

for other in workflow.rules:
    other.priority = other.priority or BEFORE_TASKS


onstart:
    # A scheduler that limits jobs per second starts, with each look at what is ready, a timer for another look: after n jobs it
    # looks n times a second, which in the end takes a core. Here jobs begin when they are ready; on a cluster, in arrays.
    workflow.scheduler.job_rate_limiter = None
