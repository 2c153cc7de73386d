"""Many processes on PyTorch's own engine: FSDP2, tensor parallelism over heads, sharding rules.

DistributedDataParallel needs nothing of this: a swapped model is a module like any other. Importing
this module tells DTensor how lierope's operators shard.
"""

from lierope.distributed import sharding_rules
from lierope.distributed.fully_shard import fully_shard_encodings
from lierope.distributed.head_parallel import HeadParallel

__all__ = ["HeadParallel", "fully_shard_encodings"]

sharding_rules.register()
