"""Attack steps, projections and random starts.

All functions take images x (N, ...) of float32 or float64 and keep the samples of a batch apart. A
step's result is a constant for autograd: no attack differentiates through its steps.

Arguments that the functions share:

x_adv: The iterate, shape and dtype of x; changed in place by the functions whose name ends in _.
grad: Gradient of the loss to x_adv, shape of x, any floating dtype and strides.
eps, step_size: Radius and step length in the norm, a number or one for each sample (N,).
bounds: Lowest and highest pixel value: numbers, one per channel (C,), or tensors that broadcast to
    an image.
targeted: Descend the loss instead.

A gradient's scale does not matter: one of 1e-40 moves a sample as far as one of 1e30. A zero
gradient does not move it. A NaN entry counts as zero, an infinite one as the largest finite number.

Devices without kernels take the same steps in plain torch (`ops.reference.pgd`). On a GPU that is a
build without its CUDA kernels, and a RuntimeWarning says so.
"""
