"""The DVC pipeline as olmix sees it: what is stale, where links may lead, and the run-cache. Only here is dvc imported.

`dvc_internals` is the one module that imports dvc and lists what it uses, so that another DVC can break one file.
"""

from olmix.pipeline.history import output_at
from olmix.pipeline.links import cache_folder, link_is_allowed
from olmix.pipeline.run_cache import RunCache
from olmix.pipeline.status import stale_stages
from olmix.pipeline.stores import NO_REMOTE

__all__ = ["NO_REMOTE", "RunCache", "cache_folder", "link_is_allowed", "output_at", "stale_stages"]
