// Singular vectors of interleaved matrices (part of batched_svd_body.h).
//
// One-sided Jacobi on the transposed triangle of a pivoted QR factorisation (Drmac and Veselic,
// LAPACK Working Notes 169, 170): A P = Q R, R^T W = V diag(sigma). The columns of R^T are graded
// and almost orthogonal already, so 5 to 8 sweeps do, where A itself needs up to 20. W is not
// accumulated but comes, with a complete set of columns also for rank-deficient A, from one more
// factorisation: R V = W diag(sigma), so W is its orthogonal factor, and A = (Q W) diag(sigma) (P
// V)^T.

// Applies the k-th reflector stored in q to columns first .. end of `to`.
template <typename T>
void reflect(const LaneMatrix<T>& q, int64_t k, Vec<T> tau, const LaneMatrix<T>& to, int64_t first,
             int64_t end) {
  by_four_columns(first, end,
                  [&]<int kCount>(std::integral_constant<int, kCount>, int64_t j)
                      __attribute__((always_inline)) {
                        Vec<T> sum[kCount];
#pragma GCC unroll 4
                        for (int c = 0; c < kCount; ++c) sum[c] = to(k, j + c);
                        for (int64_t i = k + 1; i < q.rows; ++i) {
                          const Vec<T> u = q(i, k);
#pragma GCC unroll 4
                          for (int c = 0; c < kCount; ++c) sum[c] += u * to(i, j + c);
                        }
#pragma GCC unroll 4
                        for (int c = 0; c < kCount; ++c) {
                          sum[c] *= tau;
                          store<T>(to.at(k, j + c), to(k, j + c) - sum[c]);
                        }
                        for (int64_t i = k + 1; i < q.rows; ++i) {
                          const Vec<T> u = q(i, k);
#pragma GCC unroll 4
                          for (int c = 0; c < kCount; ++c) {
                            store<T>(to.at(i, j + c), to(i, j + c) - u * sum[c]);
                          }
                        }
                      });
}

// Brings the column with the largest norm over rows k .. to position k, in every lane its own.
template <typename T>
void pivot(const LaneMatrix<T>& a, int64_t columns, int64_t k, Integer<T>* order) {
  Vec<T> largest = broadcast(T{-1});
  IntegerVec<T> best{};
  for (int64_t j = k; j < columns; ++j) {
    Vec<T> square{};
    for (int64_t i = k; i < a.rows; ++i) square += a(i, j) * a(i, j);
    const auto better = square > largest;
    largest = better ? square : largest;
    best = better ? IntegerVec<T>{} + static_cast<Integer<T>>(j) : best;
  }
  for (int64_t l = 0; l < kLanes<T>; ++l) {
    const int64_t j = best[l];
    if (j == k) continue;
    std::swap(order[k * kLanes<T> + l], order[j * kLanes<T> + l]);
    for (int64_t i = 0; i < a.rows; ++i) std::swap(a.at(i, k)[l], a.at(i, j)[l]);
  }
}

// Householder QR in place: R on and above the diagonal, the reflectors' tails below it. With
// `order`, columns are exchanged first and order[k] is the original place of column k.
template <typename T>
void factorise(const LaneMatrix<T>& a, int64_t columns, T* taus,  // (columns,)
               Integer<T>* order) {                               // (columns,) or null
  if (order != nullptr) {
    for (int64_t j = 0; j < columns * kLanes<T>; ++j)
      order[j] = static_cast<Integer<T>>(j / kLanes<T>);
  }
  for (int64_t k = 0; k < columns; ++k) {
    if (order != nullptr) pivot(a, columns, k, order);
    Vec<T> tail_square{};
    for (int64_t i = k + 1; i < a.rows; ++i) tail_square += a(i, k) * a(i, k);
    const Reflectors<T> reflector = make_reflectors<T>(a(k, k), tail_square);
    store(a.at(k, k), reflector.beta);
    for (int64_t i = k + 1; i < a.rows; ++i) store<T>(a.at(i, k), a(i, k) * reflector.scale);
    set_entry(taus, k, reflector.tau);
    reflect(a, k, reflector.tau, a, k + 1, columns);
  }
}

// q = the first columns of the orthogonal factor, with signs that make R's diagonal >= 0. q may
// have more rows than the factorised matrix; they become zero.
template <typename T>
void form_orthogonal(const LaneMatrix<T>& factorised, int64_t columns, const T* taus,
                     const LaneMatrix<T>& q) {
  std::fill_n(q.data, q.rows * columns * kLanes<T>, T{0});
  for (int64_t k = columns - 1; k >= 0; --k) {
    const Vec<T> one = broadcast(T{1});
    store<T>(q.at(k, k), factorised(k, k) < Vec<T>{} ? -one : one);
    reflect(factorised, k, entry(taus, k), q, k, columns);
  }
}

// Rotates the columns of b (n, n) until they are orthogonal, larger ones to the left. Returns the
// lanes that are not finished after kMaximumSweeps.
template <typename T>
IntegerVec<T> orthogonalise(const LaneMatrix<T>& b, int64_t n) {
  const Vec<T> tolerance = broadcast(orthogonality_tolerance<T>(n));
  const Vec<T> negligible = broadcast(kNegligibleSquare<T>);
  IntegerVec<T> moved{};
  for (int sweep = 0; sweep < kMaximumSweeps; ++sweep) {
    moved = IntegerVec<T>{};
    for (int64_t p = 0; p + 1 < n; ++p) {
      for (int64_t q = p + 1; q < n; ++q) {
        Vec<T> p_square{}, q_square{}, inner{};
        for (int64_t i = 0; i < n; ++i) {
          const Vec<T> x = b(i, p), y = b(i, q);
          p_square += x * x;
          q_square += y * y;
          inner += x * y;
        }
        const auto oblique =
            (absolute<T>(inner) > tolerance * square_root<T>(p_square) * square_root<T>(q_square)) &
            (p_square > negligible) & (q_square > negligible);
        const auto exchanged = p_square < q_square;
        if (!any<T>(oblique | exchanged)) continue;
        moved |= oblique | exchanged;
        const auto [c, s] = jacobi_rotations<T>(p_square, q_square, inner, oblique);
        const Vec<T> pp = exchanged ? s : c, pq = exchanged ? c : -s;
        const Vec<T> qp = exchanged ? c : s, qq = exchanged ? -s : c;
        for (int64_t i = 0; i < n; ++i) {
          const Vec<T> x = b(i, p), y = b(i, q);
          store<T>(b.at(i, p), pp * x + pq * y);
          store<T>(b.at(i, q), qp * x + qq * y);
        }
      }
    }
    if (!any<T>(moved)) break;
  }
  return moved;
}

template <typename T>
int64_t svd_together_workspace(int64_t rows, int64_t columns) {
  return (2 * rows * columns + 2 * columns * columns + 3 * columns) * kLanes<T>;
}

template <typename T>
int64_t svd_together(const MatrixView<const T>* matrices, int64_t count, T* workspace,
                     const FactorViews<T>* factors) {
  int64_t rows, n;
  largest_shape(matrices, count, rows, n);
  const LaneMatrix<T> a{workspace, rows}, u{a.at(0, n), rows};
  const LaneMatrix<T> b{u.at(0, n), n}, v{b.at(0, n), n};
  T* taus = v.at(0, n);
  T* other_taus = taus + n * kLanes<T>;
  auto* order = reinterpret_cast<Integer<T>*>(other_taus + n * kLanes<T>);
  Balance<T> balances[kLanes<T>];
  load_together(matrices, count, rows, n, a.data);
  balance_together(a.data, rows * n, balances);

  factorise(a, n, taus, order);
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i < n; ++i) store<T>(b.at(i, j), i >= j ? a(j, i) : Vec<T>{});
  }
  const IntegerVec<T> unfinished = orthogonalise(b, n);

  // V: the normalised columns, and whatever completes them where sigma is zero.
  for (int64_t j = 0; j < n; ++j) {
    Vec<T> square{};
    for (int64_t i = 0; i < n; ++i) square += b(i, j) * b(i, j);
    const auto some = square > broadcast(kNegligibleSquare<T>);
    const Vec<T> one = broadcast(T{1});
    const Vec<T> inverse = some ? one / square_root<T>(some ? square : one) : Vec<T>{};
    for (int64_t i = 0; i < n; ++i) store<T>(b.at(i, j), b(i, j) * inverse);
  }
  factorise<T>(b, n, other_taus, nullptr);
  form_orthogonal(b, n, other_taus, v);

  // W: the orthogonal factor of R V. The singular values are the diagonal of the triangular one,
  // not the norms of the rotated columns, which drift with every rotation.
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i < n; ++i) {
      Vec<T> sum{};
      for (int64_t k = i; k < n; ++k) sum += a(i, k) * v(k, j);
      store(b.at(i, j), sum);
    }
  }
  factorise<T>(b, n, other_taus, nullptr);
  form_orthogonal(b, n, other_taus, u);
  for (int64_t k = n - 1; k >= 0; --k) reflect(a, k, entry(taus, k), u, 0, n);

  int64_t failed = -1;
  for (int64_t l = count - 1; l >= 0; --l) {
    const FactorViews<T>& to = factors[l];
    const bool finite = balances[l].finite;
    if (finite && unfinished[l] != 0) failed = l;
    const T unscale = finite ? T{1} / balances[l].scale : T{1};
    const T poison = finite ? T{0} : std::numeric_limits<T>::quiet_NaN();
    T sigma = std::numeric_limits<T>::max();  // descending also where rounding says otherwise
    for (int64_t j = 0; j < matrices[l].columns; ++j) {
      sigma = std::min(sigma, std::abs(b.at(j, j)[l]));
      to.values[j] = sigma * unscale + poison;
      for (int64_t i = 0; i < matrices[l].rows; ++i) to.u(i, j) = u.at(i, j)[l] + poison;
      for (int64_t i = 0; i < matrices[l].columns; ++i) {
        to.v(order[i * kLanes<T> + l], j) = v.at(i, j)[l] + poison;
      }
    }
  }
  return failed;
}
