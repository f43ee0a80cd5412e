"""Whether the pipeline could finish: asked before anything is trained."""

from __future__ import annotations

from olmix.config.params import Params
from olmix.config.runtime import load_runtime
from olmix.core.limits import require_feasible
from olmix.core.plan import Plan
from olmix.errors import DataError
from olmix.proxy.tasks import encode_task, read_task


def require_limits(params: Params, plan: Plan) -> None:
    """Raise InfeasibleError when no mixture of a plan meets the limits."""
    target = params.target_settings()
    with params.named_in_errors():
        require_feasible(plan.dataset, plan.space, params.caps(plan.dataset), target.tokens, target.repetition)


def preflight(params: Params, plan: Plan) -> None:
    """Raise now what would otherwise stop the pipeline only after its proxies are trained.

    Limits that no mixture meets, a swarm that identifies no law, a recipe whose numbers do not fit, a task that cannot
    be read. Recipe and tasks are of no account when the proxies are trained elsewhere.
    """
    load_runtime(params.project)
    require_limits(params, plan)
    params.swarm_of(plan)
    if params.proxy.external:
        return
    tokenizer = params.load_tokenizer()
    params.recipe(tokenizer.vocabulary)
    for task in params.tasks.names:
        if not params.task_path(task).exists():
            raise DataError(
                "no such task",
                file=params.task_path(task),
                way_out="add the file or remove the task from params.yaml: tasks.families",
            )
        encode_task(read_task(params.task_path(task)), tokenizer, params.proxy.sequence_length)
