"""The way past torch's dispatcher for the streaming measures; no part of the public interface.

`GramWriter(dtype, centering, precision).write(features, n, p, out)` writes packed Grams from
address to address and checks neither: for plain contiguous CPU tensors of a kind that
`centered_gram` has taken before (csrc/module.cpp says why).
"""

from repsim_fast._C import GramWriter

__all__ = ["GramWriter"]
