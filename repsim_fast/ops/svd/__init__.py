"""Singular values and vectors, and eigenvectors, of many matrices at once.

The functions of singular values take real matrices a (B, m, n); float16 and bfloat16 are computed,
and returned, in float32. B, m and n may be 0, strides may be any. `rows` and `columns` (B,) say how
much of each matrix counts: matrix b is ``a[b, :rows[b], :columns[b]]``, whatever lies behind is not
read, and results have zeros there. A matrix with NaN or infinity gets NaN results; the others do
not change.

Accuracy: results are those of a matrix that differs from a[b] by at most c ε ‖a[b]‖₂, with ε of the
dtype. So every singular value has an error of at most c ε times the largest one, and values below
that are rounding. The tests hold c to 10 up to 512 columns, and UᵀU, VᵀV to I within 10 ε.
Matrices of equal entries are worse, since their rounding errors have one sign: up to m ε / 3 for m
rows, as from LAPACK.
"""
