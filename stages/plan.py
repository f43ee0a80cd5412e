"""plan: what changed since the accepted mixture, and which domains must be recomputed."""

from olmix.artifacts.mixture_file import ACCEPTED, read_mixture
from olmix.artifacts.plan_file import PLAN, plan_to_json
from olmix.cli.current import preflight
from olmix.config.keys import params_for
from olmix.core.plan import make_plan
from olmix.data.manifest import dataset_of, forget_undeclared, read_manifests
from olmix.files import write_json
from olmix.terminal.exits import run


def main() -> None:
    params = params_for("plan")
    # A removed domain's outputs would change the hash of their folders for whoever still has them.
    forget_undeclared(params.domains, params.sources)
    dataset = dataset_of(read_manifests())
    reuse = params.reuse_settings()
    plan = make_plan(dataset, read_mixture(ACCEPTED).accepted.base_for(dataset, reuse), reuse)
    preflight(params, plan)
    write_json(PLAN, plan_to_json(plan))


if __name__ == "__main__":
    run(main)
