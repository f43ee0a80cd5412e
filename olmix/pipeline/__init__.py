"""The DVC pipeline as olmix sees it: what is stale, where links may lead, and the run-cache.

`dvc_internals` alone imports DVC. The other modules say what olmix wants of it, and what happens when it fails.
"""

from olmix.pipeline.history import output_at
from olmix.pipeline.links import cache_folder, link_is_allowed
from olmix.pipeline.run_cache import RunCache
from olmix.pipeline.status import stale_stages
from olmix.pipeline.stores import NO_REMOTE
from olmix.pipeline.versions import require_chosen, require_present

__all__ = [
    "NO_REMOTE",
    "RunCache",
    "cache_folder",
    "link_is_allowed",
    "output_at",
    "require_chosen",
    "require_present",
    "stale_stages",
]
