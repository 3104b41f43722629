"""Ops that used to need a compiled extension, one file an op.

Each file holds the op's definition (`*_reference`, plain PyTorch) where its fast path is another computation,
a fast CPU path (vectorised PyTorch, or a Numba kernel of `kernels/`), for some a Triton kernel for GPUs (of
`triton_kernels/`), and its registration as `torch.ops.opsin.*` where it is not composed of differentiable
PyTorch calls already. `mmcv_functions` hands the same ops to mmcv under the names of its extension. Nothing
is imported here: an op costs nothing before its file is imported.
"""
