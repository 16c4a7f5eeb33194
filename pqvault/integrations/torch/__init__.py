"""torch: sealed archives as datasets, shuffled, sharded, resumed to the sample.

``SealedFiles``: a file per item, any order. ``SealedRecords``: lines, rows and tar samples, in
the order of frames. Both are given to a `DataLoader` or torchdata's `StatefulDataLoader`.
"""

from pqvault.integrations.torch.files import SealedFiles
from pqvault.integrations.torch.records import SealedRecords
from pqvault.integrations.torch.sampler import EpochSampler

__all__ = ["EpochSampler", "SealedFiles", "SealedRecords"]
